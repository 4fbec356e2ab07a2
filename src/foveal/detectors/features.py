"""Convolutional features that several learned detectors share."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

GRID = 7  # features are resized to 7x7 cells before a linear layer regresses keypoints


def convolutions(
    in_channels: int, widths: Sequence[int], strides: Sequence[int]
) -> tuple[nn.Sequential, int]:
    """Return a chain of 3x3 convolutions with batch norm and ReLU, and its output channels.

    Args:
        in_channels: channels of the images.
        widths: output channels of each convolution.
        strides: strides of the convolutions in turn, repeated if there are more convolutions.
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
    """Return features (B, C, h, w) resized to a grid of 7x7 cells and flattened to (B, 49 C)."""
    return F.interpolate(features, (GRID, GRID), mode="bilinear", align_corners=False).flatten(1)
