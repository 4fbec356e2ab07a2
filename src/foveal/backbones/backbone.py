"""What every backbone is: images -> feature maps and one vector for all of the image."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Turns images into local features at several depths, and a global vector.

    A subclass is final and sets in its constructor:

    Attributes:
        in_channels: channels C of the images.
        widths: channels of the local features, one number a depth, from shallow to deep.
        width: numbers in the global vector.
    """

    in_channels: int
    widths: list[int]
    width: int

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return what is seen in normalised images (B, C, H, W).

        Returns:
            Local features (B, widths[d], h, w) for each depth d, and the global vector (B, width).
        """

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights that come with Foveal, by their names in the state dict.

        A model file leaves out those that training has not changed.
        """
        return {}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this backbone again."""
