"""An encoder of patches that are a few dozen pixels wide, each as one vector."""

from collections.abc import Sequence

from torch import Tensor, nn


class PatchEncoder(nn.Module):
    """Convolutions with max pooling, then a linear layer on the maximum over all positions.

    The convolutions (`features`) accept any input size, so they can also be applied to an image.

    Args:
        in_channels: channels C of the patches.
        widths: output channels of the convolutions. The first convolution halves the resolution,
            and so does a max pooling after the first and after the second-to-last convolution.
        width: dimension of a patch's vector.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], width: int):
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for index, out_channels in enumerate(widths):
            side, stride = (5, 2) if index == 0 else (3, 1)
            layers += [
                nn.Conv2d(channels, out_channels, side, stride, padding=side // 2, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
            ]
            if index in (0, len(widths) - 2):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.project = nn.Linear(channels, width)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the vectors (N, width) of patches (N, C, P, P)."""
        return self.project(self.features(patches).amax(dim=(-2, -1)))
