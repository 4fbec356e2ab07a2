"""Attention maps: features with their maps, and maps at the size of the image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Attended(NamedTuple):
    """Features of B images and their attention maps, at any number of depths."""

    local: Sequence[Tensor]  # (B, C_i, h_i, w_i)
    maps: Sequence[Tensor]  # (B, h_j, w_j)


def at_size(
    maps: Sequence[Tensor], size: tuple[int, int], strides: Sequence[int | None] = ()
) -> Tensor:
    """Return maps (B, h_j, w_j) as one tensor (B, M, H, W), by nearest neighbour.

    Args:
        maps: maps of any resolutions.
        size: height and width in pixels.
        strides: pixels per location of each map, whose last locations may be partly outside the
            image; None, or an empty sequence, for maps spread uniformly over the image.
    """
    resized = [
        _resize(weights[:, None], size) if stride is None else _crop(weights[:, None], size, stride)
        for weights, stride in zip(maps, strides or [None] * len(maps), strict=True)
    ]
    return torch.cat(resized, dim=1)


def _resize(weights: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(weights, size, mode="nearest-exact")


def _crop(weights: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    enlarged = F.interpolate(weights, scale_factor=stride, mode="nearest")
    return enlarged[..., : size[0], : size[1]]
