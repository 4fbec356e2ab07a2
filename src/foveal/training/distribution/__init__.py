"""Distributed training: devices, shared images, synchronised batch normalisation."""
