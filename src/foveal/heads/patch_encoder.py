"""Encoder of a patch with a side of some dozens of pixels: patch -> vector."""

from collections.abc import Sequence

from torch import Tensor, nn


class PatchEncoder(nn.Module):
    """Convolutions with max pooling, and the maximum over all positions.

    `features` has no fixed input size and can be applied to a whole image.

    Args:
        in_channels: channels C.
        widths: output channels of the convolutions; the first one halves the resolution.
        width: dimension of the vector.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], width: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for index, out in enumerate(widths):
            side, stride = (5, 2) if index == 0 else (3, 1)
            layers += [
                nn.Conv2d(channels, out, side, stride, padding=side // 2, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            if index in (0, len(widths) - 2):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            channels = out
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(channels, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Return (N, width) for patches (N, C, P, P)."""
        return self.project(self.features(patches).amax(dim=(-2, -1)))
