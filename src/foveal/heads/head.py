"""The interface of heads: patches -> logits."""

import inspect
from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from foveal.detectors import Located


class Head(nn.Module, ABC):
    """Classifies from patches and their locations; it never sees the image.

    A subclass is final and keeps each argument as an attribute of the same name, so that `settings`
    can write it down.

    Attributes:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C of the patches.
        num_classes: number of classes.
        context: dimension D of the vector that it reads beside the patches; 0 for none.
    """

    keypoints: int
    patch_size: int
    in_channels: int
    num_classes: int
    context: int = 0

    @abstractmethod
    def forward(self, patches: Tensor, located: Located) -> Tensor:
        """Return logits (B, classes) for normalised patches (B, K, C, P, P)."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this head again."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self"}
