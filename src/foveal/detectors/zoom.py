"""Learned location and scale of each patch."""

import torch
from torch import nn

from foveal.detectors.detector import Detector, Located
from foveal.detectors.features import GRID, convolutions, on_grid
from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single
from foveal.foundation.ranges import Channels, Keypoints, PatchSize, Positive, Widths
from foveal.images import View


class ZoomDetector(Detector):
    """Finds a location and a scale for each patch.

    A patch is a spatial transformer's attention window (Jaderberg et al. 2015, "Spatial
    transformer networks", equation 2): P x P bilinear samples, `scale` pixels apart, around a
    keypoint. It is always inside the image, and the gradient reaches location and scale.

    At a scale above 1 a patch spans more pixels than it samples. Its evidence is the whole square
    it spans: possibly more than was read, never less.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in samples.
        in_channels: channels of the images.
        min_scale: minimum spacing of the samples in pixels.
        max_scale: maximum spacing; less in images too small for such a patch.
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
        # At this scale a patch reaches the outermost pixel centres.
        fitting_scale = (min(height, width) - 1) / (2 * reach) if reach else self.max_scale
        if fitting_scale < self.min_scale:
            min_px = int(2 * reach * self.min_scale + 1.999)
            raise UserError(
                f"Expected images of at least {min_px}x{min_px} pixels (one patch), but got "
                f"{height}x{width}. Resize them or choose a smaller patch_size."
            )
        windows = self.windows(on_grid(self.features(view.whole())))
        windows = at_least_single(windows.unflatten(1, (self.keypoints, 3)))
        span = min(self.max_scale, fitting_scale) - self.min_scale
        scales = self.min_scale + span * windows[..., 2].sigmoid()  # (B, K)
        extent = torch.tensor([width, height], dtype=windows.dtype, device=windows.device)
        room = (extent - 1 - 2 * reach * scales[..., None]) / extent  # (B, K, 2), not below 0
        return Located(windows[..., :2].tanh() * room, scales)
