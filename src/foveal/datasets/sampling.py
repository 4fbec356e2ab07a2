"""Pixel samples for estimates of a dataset's mean and standard deviation."""

import torch
from torch import Tensor

from foveal.images import LargeImages
from foveal.images.photos import Photos
from foveal.images.values import as_floats

LARGE, SQUARES, SIDE = 32, 16, 64  # number of large images, squares per image, side in pixels


def sample_px(images: Tensor | Photos | LargeImages) -> tuple[Tensor, list[int] | None]:
    """Return a fixed sample of pixels (M, C) in [0, 1], and the height and width of the images.

    The size is None for photographs and large images, whose sizes may differ.
    """
    if isinstance(images, Tensor):
        sample = as_floats(images[:: max(1, len(images) // 10_000)])
        return sample.movedim(1, -1).flatten(0, -2), list(images.shape[-2:])
    return (_photo_sample(images) if isinstance(images, Photos) else _large_sample(images)), None


def _photo_sample(photos: Photos) -> Tensor:
    step = max(1, sum(part[:, 0].numel() for part in photos.parts) // 1_000_000)
    parts = [part.movedim(1, -1).flatten(0, -2)[::step] for part in photos.parts]
    return as_floats(torch.cat(parts))


def _large_sample(images: LargeImages) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(images), (LARGE,), generator=generator)
    height, width = images.size
    last = torch.tensor([max(width - SIDE, 0), max(height - SIDE, 0)])
    corners = (torch.rand(LARGE, SQUARES, 2, generator=generator) * (last + 1)).long()
    return images.crops(indices, corners, SIDE).movedim(2, -1).flatten(0, -2)
