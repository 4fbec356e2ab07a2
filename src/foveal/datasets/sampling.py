"""Pixel samples for estimates of a dataset's mean and standard deviation."""

import torch
from torch import Tensor

from foveal.images import LargeImages
from foveal.images.photos import Photos
from foveal.images.values import as_floats

# Approximate sizes of the samples of images of one size, and of photographs.
IMAGES, PHOTO_PIXELS = 10_000, 1_000_000
# Sample of large images: number of images, squares per image, and side of a square in pixels.
LARGE_IMAGES, SQUARES, SIDE = 32, 16, 64


def sample_px(images: Tensor | Photos | LargeImages) -> tuple[Tensor, list[int] | None]:
    """Return a fixed sample of pixels (M, C) in [0, 1], and the size of the images.

    The size is height and width, or None for photographs and large images, whose sizes may differ.
    """
    if isinstance(images, Tensor):
        sample = as_floats(images[:: max(1, len(images) // IMAGES)])
        return sample.movedim(1, -1).flatten(0, -2), list(images.shape[-2:])
    sample = _photo_sample(images) if isinstance(images, Photos) else _large_sample(images)
    return sample, None


def _photo_sample(photos: Photos) -> Tensor:
    """Return every n-th pixel of all photographs: one to two million pixels if they have more."""
    step = max(1, sum(part[:, 0].numel() for part in photos.parts) // PHOTO_PIXELS)
    parts = [part.movedim(1, -1).flatten(0, -2)[::step] for part in photos.parts]
    return as_floats(torch.cat(parts))


def _large_sample(images: LargeImages) -> Tensor:
    """Return the pixels of random squares of random images."""
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(images), (LARGE_IMAGES,), generator=generator)
    height, width = images.size
    last_corner = torch.tensor([max(width - SIDE, 0), max(height - SIDE, 0)])
    corners = (torch.rand(LARGE_IMAGES, SQUARES, 2, generator=generator) * (last_corner + 1)).long()
    return images.crops(indices, corners, SIDE).movedim(2, -1).flatten(0, -2)
