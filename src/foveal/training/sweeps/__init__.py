"""Sweeps: a recipe trained with many settings."""
