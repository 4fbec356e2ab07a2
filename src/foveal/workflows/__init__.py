"""Workflows: the demo, training on a folder of photographs, and explaining image files."""
