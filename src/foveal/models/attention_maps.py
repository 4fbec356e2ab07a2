"""Attention maps: features, the maps that weigh them, and the maps at the size of the image."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Attended(NamedTuple):
    """Features of B images and the maps that weigh them, at any number of depths."""

    local: Sequence[Tensor]  # (B, C_i, h_i, w_i)
    maps: Sequence[Tensor]  # (B, h_j, w_j)


def at_size(
    maps: Sequence[Tensor], size: tuple[int, int], strides: Sequence[int | None] = ()
) -> Tensor:
    """Return maps (B, h_j, w_j) as one tensor (B, M, H, W), each value over the pixels it is of.

    Args:
        maps: of any resolutions.
        size: height and width in pixels.
        strides: pixels per location of each map, of which the last may lie partly outside of the
            image; None, or no strides at all, where they lie evenly over it.
    """
    shown = [
        _evenly(weights[:, None], size) if stride is None else _cut(weights[:, None], size, stride)
        for weights, stride in zip(maps, strides or [None] * len(maps), strict=True)
    ]
    return torch.cat(shown, dim=1)


def _evenly(weights: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(weights, size, mode="nearest-exact")


def _cut(weights: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    shown = F.interpolate(weights, scale_factor=stride, mode="nearest")
    return shown[..., : size[0], : size[1]]
