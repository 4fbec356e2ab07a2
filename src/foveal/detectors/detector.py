"""What every detector is: images in, keypoints out."""

import inspect
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Detector(nn.Module, ABC):
    """Finds keypoints in images.

    A subclass is final, takes plain values (numbers, strings, lists of them) and keeps each
    argument as an attribute of the same name, so that `settings` can write it down.
    """

    keypoints: int
    least_side: int = 1  # of the images, in pixels

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return keypoints (B, K, 2) in [-1, 1] for normalised images (B, C, H, W)."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this detector again."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self"}
