"""Controls: keypoints that do not depend on the image, as baselines for detectors."""

import math

import torch
from torch import Tensor

from foveal.detectors.detector import Detector, Located
from foveal.foundation.ranges import Keypoints, Seed
from foveal.images import View


class FixedKeypoints(Detector):
    """The same keypoints for every image.

    Args:
        xy: keypoints (K, 2) in grid units.
        stored: whether they are saved with the weights; otherwise they are computed again.
    """

    places: Tensor

    def __init__(self, xy: Tensor, stored: bool = False):
        super().__init__()
        self.keypoints = len(xy)
        self.register_buffer("places", xy, persistent=stored)

    def forward(self, view: View) -> Located:
        """Return the same keypoints (B, K, 2) for each image of a view."""
        images = view.whole()
        return Located(self.places.to(images.dtype).expand(images.shape[0], -1, -1))


class RandomKeypoints(FixedKeypoints):
    """Uniformly random keypoints, the same for every image.

    Args:
        keypoints: number K of keypoints.
        seed: random seed.
    """

    def __init__(self, keypoints: Keypoints, seed: Seed = 0):
        generator = torch.Generator().manual_seed(seed)
        super().__init__(torch.rand(keypoints, 2, generator=generator) * 2 - 1, stored=True)
        self.seed = seed


class Grid(FixedKeypoints):
    """Keypoints on a regular grid, row by row; the last row may have fewer keypoints.

    Args:
        keypoints: number K of keypoints.
    """

    def __init__(self, keypoints: Keypoints):
        columns = math.ceil(math.sqrt(keypoints))
        rows = math.ceil(keypoints / columns)
        index = torch.arange(keypoints)
        x = (2 * (index % columns) + 1) / columns - 1
        y = (2 * (index // columns) + 1) / rows - 1
        super().__init__(torch.stack([x, y], dim=-1))


class Centre(FixedKeypoints):
    """All keypoints at the centre of the image.

    Args:
        keypoints: number K of keypoints.
    """

    def __init__(self, keypoints: Keypoints = 1):
        super().__init__(torch.zeros(keypoints, 2))
