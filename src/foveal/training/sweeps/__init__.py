"""Sweeps: models trained from one recipe with many combinations of settings."""
