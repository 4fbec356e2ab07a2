"""A dataset: images whose left or right half is bright."""

from pathlib import Path

import torch

from foveal.datasets import ImageSet

COUNTS = {"train": 60, "val": 20, "test": 20}


def load_halves(split: str, data_dir: Path) -> ImageSet:
    """Return one split of images of 12x12 pixels, generated from a fixed seed."""
    generator = torch.Generator().manual_seed(sorted(COUNTS).index(split))
    count = COUNTS[split]
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 1, 12, 12), dtype=torch.uint8, generator=generator)
    images[labels == 0, :, :, :6] += 150
    images[labels == 1, :, :, 6:] += 150
    return ImageSet("halves", split, images, labels, ("left", "right"))
