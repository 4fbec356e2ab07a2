"""The convolutions that learned detectors look with."""

from collections.abc import Sequence

from torch import nn


def convolutions(
    in_channels: int, widths: Sequence[int], strides: Sequence[int]
) -> tuple[nn.Sequential, int]:
    """Return 3x3 convolutions, each normalised and rectified, and the channels they end in.

    Args:
        in_channels: channels of the images.
        widths: output channels of each.
        strides: of each, over and over again.
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
