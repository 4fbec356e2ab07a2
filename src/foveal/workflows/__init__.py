"""Workflows: the demo, the first hour with a folder of photographs, explained files."""
