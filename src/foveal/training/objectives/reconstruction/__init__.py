"""Reconstruction of images from patches, without labels."""
