"""Attention maps: features with their maps, and the enlargement of maps to the size of the image.

Depth d is the d-th stage of a backbone; its features and its map have one value per location.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Attended(NamedTuple):
    """Features of B images at one or more depths, and the attention maps that weight them.

    A model need not have a map for each of its features.
    """

    local: Sequence[Tensor]  # (B, C_i, h_i, w_i) each
    maps: Sequence[Tensor]  # (B, h_j, w_j) each


def at_size(
    maps: Sequence[Tensor], size: tuple[int, int], strides: Sequence[int | None] = ()
) -> Tensor:
    """Return M maps at the size of the image as one tensor (B, M, H, W), by nearest neighbour.

    Args:
        maps: attention maps (B, h_j, w_j), each of any resolution.
        size: height and width of the image in pixels.
        strides: for each map, pixels of the image per location along a side; its last locations may
            extend beyond the image. None for a map whose locations divide the image equally. An
            empty sequence stands for None for all maps.
    """
    resized = [
        _resize(weights[:, None], size)
        if stride is None
        else _enlarge(weights[:, None], size, stride)
        for weights, stride in zip(maps, strides or [None] * len(maps), strict=True)
    ]
    return torch.cat(resized, dim=1)


def _resize(weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps whose locations divide the image equally, at the size of the image."""
    return F.interpolate(weights, size, mode="nearest-exact")


def _enlarge(weights: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return maps enlarged by the stride and cropped to the size of the image."""
    height, width = size
    enlarged = F.interpolate(weights, scale_factor=stride, mode="nearest")
    return enlarged[..., :height, :width]
