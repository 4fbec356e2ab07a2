"""Learned keypoints, each the mean location of a heatmap (spatial soft argmax)."""

import torch
from torch import Tensor, nn

from foveal.detectors.detector import Detector, Located
from foveal.detectors.features import convolutions
from foveal.foundation.precision import at_least_single
from foveal.foundation.ranges import Channels, Keypoints, Positive, Widths
from foveal.images import View
from foveal.images.geometry import from_px


class HeatmapDetector(Detector):
    """A small convolutional net with one heatmap per keypoint, whose mean location is the keypoint.

    A spatial softmax turns each heatmap into weights that sum to 1. The mean location under these
    weights is differentiable (spatial soft argmax; Levine et al. 2016, "End-to-end training of deep
    visuomotor policies", section 5.1). There is no global pooling, so positions are preserved.

    Args:
        keypoints: number K of keypoints.
        in_channels: channels of the images.
        widths: output channels of the convolutions; every other one, starting with the first,
            halves the resolution.
        sharpness: factor by which the heatmaps are multiplied before the softmax. Untrained
            heatmaps are nearly uniform, so all keypoints are near the centre; a larger factor moves
            them apart from the first training step.
    """

    def __init__(
        self,
        keypoints: Keypoints,
        in_channels: Channels = 1,
        widths: Widths = (12, 24, 32, 32),
        sharpness: Positive = 1.0,
    ):
        super().__init__()
        self.keypoints = keypoints
        self.in_channels = in_channels
        self.widths = list(widths)
        self.sharpness = sharpness
        self.features, channels = convolutions(in_channels, widths, strides=(2, 1))
        self.heatmaps = nn.Conv2d(channels, keypoints, 1)

    def forward(self, view: View) -> Located:
        """Return the mean location of each heatmap, for a view of B normalised images."""
        heat = self.heatmaps(self.features(view.whole()))  # (B, K, h, w)
        return Located(mean_location(heat, self.sharpness))


def mean_location(heat: Tensor, sharpness: float = 1.0) -> Tensor:
    """Return the mean location (B, K, 2) of each heatmap (B, K, h, w) under a spatial softmax.

    The result has at least single precision, because in half precision neighbouring pixels may have
    equal coordinates.

    Args:
        heat: heatmaps before the softmax; keypoints are in grid units of their size.
        sharpness: factor by which the heatmaps are multiplied.
    """
    height, width = heat.shape[-2:]
    heat = at_least_single(heat) * sharpness
    weights = heat.flatten(2).softmax(dim=-1).unflatten(-1, (height, width))
    x_px = torch.arange(width, dtype=heat.dtype, device=heat.device)
    y_px = torch.arange(height, dtype=heat.dtype, device=heat.device)
    mean_x = (weights.sum(-2) * x_px).sum(-1)  # (B, K)
    mean_y = (weights.sum(-1) * y_px).sum(-1)
    return from_px(torch.stack([mean_x, mean_y], dim=-1), (height, width))
