"""Convolutional features of learned detectors."""

from collections.abc import Sequence

from torch import nn


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
