"""Convolutional features of learned detectors."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

GRID = 7  # side in cells to which features are resized before a regression


def convolutions(
    in_channels: int, widths: Sequence[int], strides: Sequence[int]
) -> tuple[nn.Sequential, int]:
    """Return 3x3 convolutions, each with batch norm and ReLU, and the number of output channels.

    Args:
        in_channels: channels of the images.
        widths: output channels of each convolution.
        strides: stride of each convolution, repeated cyclically.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for index, width in enumerate(widths):
        stride = strides[index % len(strides)]
        layers += [
            nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
        channels = width
    return nn.Sequential(*layers), channels


def on_grid(features: Tensor) -> Tensor:
    """Return features (B, C, h, w) resized to a grid of 7x7 cells, flattened (B, 49 C)."""
    return F.interpolate(features, (GRID, GRID), mode="bilinear", align_corners=False).flatten(1)
