"""Learned keypoints, regressed from a feature map by a linear layer."""

import torch
from torch import nn

from foveal.detectors.detector import Detector, Located
from foveal.detectors.features import GRID, convolutions, on_grid
from foveal.foundation.ranges import Channels, Keypoints, Widths
from foveal.images import View


class RegressionDetector(Detector):
    """Convolutions, then a linear layer from the whole feature map to the keypoints.

    The features are resized to 7x7 cells and flattened rather than averaged, so that the linear
    layer can tell positions apart. A tanh keeps the keypoints inside the image; unlike a clamp, it
    has a gradient everywhere.

    Args:
        keypoints: number K of keypoints.
        in_channels: channels of the images.
        widths: output channels of the convolutions, each of stride 2.
    """

    def __init__(self, keypoints: Keypoints, in_channels: Channels = 1, widths: Widths = (16, 24)):
        super().__init__()
        self.keypoints = keypoints
        self.in_channels = in_channels
        self.widths = list(widths)
        self.features, channels = convolutions(in_channels, widths, strides=(2,))
        self.places = nn.Linear(channels * GRID**2, keypoints * 2)

    def forward(self, view: View) -> Located:
        """Return keypoints in (-1, 1), for a view of B normalised images."""
        xy = self.places(on_grid(self.features(view.whole())))
        return Located(torch.tanh(xy).unflatten(1, (self.keypoints, 2)))  # (B, K, 2)
