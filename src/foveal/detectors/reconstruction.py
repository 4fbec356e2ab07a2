"""Keypoints learned without labels, from which the image can be rebuilt."""

from foveal.detectors.heatmap import HeatmapDetector
from foveal.foundation.ranges import Channels, Keypoints, Widths


class ReconstructionDetector(HeatmapDetector):
    """A wider `HeatmapDetector`, trained by the preset `reconstructor`.

    It has its own name because its keypoints serve another purpose: rebuilding the image, not
    classifying it.

    Args:
        keypoints: number K of keypoints.
        in_channels: channels of the images.
        widths: output channels of the convolutions; every other one, starting with the first,
            halves the resolution.
    """

    def __init__(
        self, keypoints: Keypoints, in_channels: Channels = 1, widths: Widths = (16, 32, 48, 48)
    ):
        super().__init__(keypoints, in_channels, widths)
