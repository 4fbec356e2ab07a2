"""The brightest pixels as keypoints."""

import torch

from foveal.detectors import Detector, Located
from foveal.images import View
from foveal.images.geometry import from_px


class Brightest(Detector):
    """The brightest pixels of an image, the brightest first.

    Args:
        keypoints: number K of keypoints.
    """

    def __init__(self, keypoints: int = 2):
        super().__init__()
        self.keypoints = keypoints

    def forward(self, view: View) -> Located:
        """Return the brightest pixels, for a view of B images."""
        grey = view.whole().mean(dim=1).flatten(1)  # (B, H * W)
        indices = grey.topk(self.keypoints, dim=1).indices  # (B, K)
        width = view.size[1]
        xy_px = torch.stack([indices % width, indices // width], dim=-1).to(grey.dtype)
        return Located(from_px(xy_px, view.size))
