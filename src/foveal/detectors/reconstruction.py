"""Keypoints learned without labels: those from which the image can be rebuilt."""

from foveal.detectors.heatmap import HeatmapDetector
from foveal.foundation.ranges import Channels, Keypoints, Widths


class ReconstructionDetector(HeatmapDetector):
    """The net of `HeatmapDetector`, somewhat wider, for the preset `reconstructor` to train.

    It has a name of its own because where it looks has another reason: what lets the image be
    rebuilt, not what tells the class.

    Args:
        keypoints: number K of keypoints.
        in_channels: channels of the images.
        widths: output channels of the convolutions; every other one, from the first on, halves
            the resolution.
    """

    def __init__(
        self, keypoints: Keypoints, in_channels: Channels = 1, widths: Widths = (16, 32, 48, 48)
    ):
        super().__init__(keypoints, in_channels, widths)
