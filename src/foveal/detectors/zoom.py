"""Learned keypoints, with a learned scale for each patch."""

import torch
from torch import nn

from foveal.detectors.detector import Detector, Located
from foveal.detectors.features import GRID, convolutions, on_grid
from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single
from foveal.foundation.ranges import Channels, Keypoints, PatchSize, Positive, Widths
from foveal.images import View


class ZoomDetector(Detector):
    """Chooses a location and a scale for each patch.

    A patch is the attention window of a spatial transformer (Jaderberg et al. 2015, "Spatial
    transformer networks", equation 2): P x P bilinear samples, `scale` pixels apart, around a
    keypoint. The location and the scale are limited so that the window is always inside the image,
    and both receive a gradient.

    At a scale above 1 a patch spans more pixels than it samples. All pixels of the square that it
    spans are counted as evidence, which may be more than were read, but never fewer.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in samples.
        in_channels: channels of the images.
        min_scale: minimum spacing of the samples in pixels.
        max_scale: maximum spacing of the samples in pixels; reduced in images that are too small
            for a patch at this scale.
        widths: output channels of the convolutions, each of stride 2.

    Raises:
        UserError: min_scale > max_scale, or an argument is invalid.
    """

    scaled = True

    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize = 5,
        in_channels: Channels = 1,
        min_scale: Positive = 1.0,
        max_scale: Positive = 3.0,
        widths: Widths = (16, 24),
    ):
        super().__init__()
        if min_scale > max_scale:
            raise UserError(
                f"Expected min_scale <= max_scale, but got {min_scale} and {max_scale}."
            )
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.min_scale, self.max_scale = min_scale, max_scale
        self.widths = list(widths)
        self.features, channels = convolutions(in_channels, widths, strides=(2,))
        self.windows = nn.Linear(channels * GRID**2, keypoints * 3)

    def forward(self, view: View) -> Located:
        """Return keypoints and scales, for a view of B normalised images.

        Raises:
            UserError: the images are smaller than a patch at the minimum scale.
        """
        height, width = view.size
        reach = (self.patch_size - 1) / 2  # from a patch's centre to its last sample
        # The largest scale that fits: a patch then reaches the outermost pixel centres.
        fitting_scale = (min(height, width) - 1) / (2 * reach) if reach else self.max_scale
        if fitting_scale < self.min_scale:
            min_px = int(2 * reach * self.min_scale + 1.999)  # rounded up
            raise UserError(
                f"Expected images of at least {min_px}x{min_px} pixels (one patch), but got "
                f"{height}x{width}. Resize them or choose a smaller patch_size."
            )
        windows = self.windows(on_grid(self.features(view.whole())))
        windows = at_least_single(windows.unflatten(1, (self.keypoints, 3)))
        scale_range = min(self.max_scale, fitting_scale) - self.min_scale
        scales = self.min_scale + scale_range * windows[..., 2].sigmoid()  # (B, K)
        extent = torch.tensor([width, height], dtype=windows.dtype, device=windows.device)
        # Keypoints may move this far from the centre, in grid units; never negative.
        room = (extent - 1 - 2 * reach * scales[..., None]) / extent  # (B, K, 2)
        return Located(windows[..., :2].tanh() * room, scales)
