"""What runs a model: the seam where another runtime than PyTorch may stand."""

from typing import Protocol

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.models import ImageModel


class Runner(Protocol):
    """Answers for images, and says what it looked at."""

    def explain(self, images: Tensor) -> Explanation:
        """Return the explanation of images (B, C, H, W), floats in [0, 1]."""


class TorchRunner:
    """Runs a model as it is, in PyTorch.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: ImageModel):
        self.network = network

    def explain(self, images: Tensor) -> Explanation:
        """Return the explanation of images (B, C, H, W), floats in [0, 1]."""
        with torch.inference_mode():
            return self.network.explain(images)
