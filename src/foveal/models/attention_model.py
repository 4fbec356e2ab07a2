"""What every attention model is: it weighs its features by maps, and answers from both."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.explanation import Explanation
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.classifier import ImageClassifier


class AttentionModel(ImageClassifier):
    """A classifier whose attention maps are part of its decision.

    A subclass implements `attend` and `decide`. Their seam is where `foveal evaluate` puts in
    another image's maps, to measure what an image's own are worth.
    """

    looks = "maps"
    abilities = frozenset({Ability.CLASSES, Ability.MAPS, Ability.GIVEN_MAPS})

    @abstractmethod
    def attend(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what is seen in normalised images (B, C, H, W), and how it is weighed.

        Returns:
            Features (B, C_i, h_i, w_i) of any number of layers, and attention maps (B, h_j, w_j).
        """

    @abstractmethod
    def decide(self, local: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes) from features and maps as `attend` returns them."""

    def observe(self, view: View) -> Explanation:
        """Classify B images and keep the maps at their size."""
        images = view.whole()
        local, maps = self.attend(images)
        shown = at_size(maps, view.size, self.map_strides())
        return Explanation(images, self.decide(local, maps), maps=shown)

    def map_strides(self) -> Sequence[int | None]:
        """Return the pixels per location of each map, or None where it lies evenly."""
        return ()


def at_size(
    maps: Sequence[Tensor], size: tuple[int, int], strides: Sequence[int | None] = ()
) -> Tensor:
    """Return maps (B, h_j, w_j) as one tensor (B, M, H, W), each value over the pixels it is of.

    Args:
        maps: of any resolutions.
        size: height and width in pixels.
        strides: pixels per location of each map, of which the last may lie partly outside of the
            image; None, or no strides at all, where they lie evenly over it.
    """
    shown = [
        _evenly(weights[:, None], size) if stride is None else _cut(weights[:, None], size, stride)
        for weights, stride in zip(maps, strides or [None] * len(maps), strict=True)
    ]
    return torch.cat(shown, dim=1)


def _evenly(weights: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(weights, size, mode="nearest-exact")


def _cut(weights: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    shown = F.interpolate(weights, scale_factor=stride, mode="nearest")
    return shown[..., : size[0], : size[1]]
