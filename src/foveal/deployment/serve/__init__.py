"""Foveal Studio: a web page and an HTTP API that show what models looked at."""
