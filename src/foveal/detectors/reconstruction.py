"""Keypoints that are learned without labels, for rebuilding the image from patches."""

from foveal.detectors.heatmap import HeatmapDetector
from foveal.foundation.ranges import Channels, Keypoints, Widths


class ReconstructionDetector(HeatmapDetector):
    """A `HeatmapDetector` with wider convolutions, for models of the preset `reconstructor`.

    It has its own name in settings because its keypoints serve another purpose: the image is to be
    rebuilt from the patches around them, not classified.

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
