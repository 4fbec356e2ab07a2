"""The interface of backbones: images -> feature maps and a global vector."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Turns images into local features at several depths, and a global vector.

    A subclass is final and sets in its constructor:

    Attributes:
        in_channels: channels C of the images.
        widths: channels of the local features, one number a depth, from shallow to deep.
        width: dimension of the global vector.
        strides: pixels of the image per location of each depth's features, where the image is
            padded to a multiple of them; None where the features lie evenly over the image.
        averages: whether the global vector is the mean of the deepest features.
    """

    in_channels: int
    widths: list[int]
    width: int
    strides: Sequence[int | None]
    averages: bool = False

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
