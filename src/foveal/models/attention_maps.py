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
            image; None, or no strides at all, for maps spread uniformly over the image.
    """
    shown = [
        _uniform(weights[:, None], size) if stride is None else _cut(weights[:, None], size, stride)
        for weights, stride in zip(maps, strides or [None] * len(maps), strict=True)
    ]
    return torch.cat(shown, dim=1)


def _uniform(weights: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(weights, size, mode="nearest-exact")


def _cut(weights: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    shown = F.interpolate(weights, scale_factor=stride, mode="nearest")
    return shown[..., : size[0], : size[1]]
