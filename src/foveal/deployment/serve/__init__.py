"""Foveal Studio: a web page and an HTTP API that show predictions with their explanations."""
