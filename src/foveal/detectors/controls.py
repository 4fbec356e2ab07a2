"""Controls: keypoints that do not depend on the image, as baselines for detectors."""

import math

import torch
from torch import Tensor

from foveal.detectors.detector import Detector, Located
from foveal.foundation.ranges import Keypoints, Seed
from foveal.images import View


class RandomKeypoints(Detector):
    """Uniformly random keypoints, the same for every image.

    Args:
        keypoints: number K of keypoints.
        seed: random seed.
    """

    places: Tensor

    def __init__(self, keypoints: Keypoints, seed: Seed = 0):
        super().__init__()
        self.keypoints = keypoints
        self.seed = seed
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("places", torch.rand(keypoints, 2, generator=generator) * 2 - 1)

    def forward(self, view: View) -> Located:
        """Return the same keypoints (B, K, 2) for each image of a view."""
        return _for_all(self.places, view)


class Grid(Detector):
    """Keypoints on a regular grid, row by row; the last row may have fewer.

    Args:
        keypoints: number K of keypoints.
    """

    places: Tensor

    def __init__(self, keypoints: Keypoints):
        super().__init__()
        self.keypoints = keypoints
        columns = math.ceil(math.sqrt(keypoints))
        rows = math.ceil(keypoints / columns)
        index = torch.arange(keypoints)
        x = (2 * (index % columns) + 1) / columns - 1
        y = (2 * (index // columns) + 1) / rows - 1
        self.register_buffer("places", torch.stack([x, y], dim=-1), persistent=False)

    def forward(self, view: View) -> Located:
        """Return the same keypoints (B, K, 2) for each image of a view."""
        return _for_all(self.places, view)


class Centre(Detector):
    """Every keypoint at the image's centre.

    Args:
        keypoints: number K of keypoints.
    """

    def __init__(self, keypoints: Keypoints = 1):
        super().__init__()
        self.keypoints = keypoints

    def forward(self, view: View) -> Located:
        """Return the same keypoints (B, K, 2) for each image of a view."""
        return _for_all(view.whole().new_zeros(self.keypoints, 2), view)


def _for_all(xy: Tensor, view: View) -> Located:
    """Return the same keypoints (K, 2) for each image of a view."""
    images = view.whole()
    return Located(xy.to(images.dtype).expand(images.shape[0], -1, -1))
