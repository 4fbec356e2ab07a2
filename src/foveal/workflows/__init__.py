"""Workflows: the demo, training on a folder of photographs, and explanations of image files."""
