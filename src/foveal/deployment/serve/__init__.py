"""Foveal Studio: a web page and an HTTP API for explained predictions."""
