"""Modules for ONNX export: named tensors of the explanation, and split points of the graph."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.images import View, WholeView
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

KEYPOINTS, SCALES = "seam.keypoints", "seam.scales"  # split points of a focus model
LOCAL, WEIGHTS = "seam.local", "seam.weights"  # of an attention model, numbered

Tensors = dict[str, Tensor]


class Traced(nn.Module, ABC):
    """A model for export: images in [0, 1] -> named tensors.

    These are the tensors of its explanation, with patches and thumbnail in [0, 1], and the split
    points. A tensor that is both has only its first name in the graph.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: ImageModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation of B images, and the tensor at each split point."""

    def named_tensors(self, images: Tensor) -> Tensors:
        """Return all named tensors for images (B, C, H, W); a tensor may have two names."""
        model = self.model
        normalised = (images - model.mean) / model.std
        explanation, split_points = self.split(WholeView(normalised, model.black))
        parts = model.denormalised(explanation).items()
        return {name: part for name, part in parts if part.shape[1]} | split_points

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `named_tensors`, each once, in its order."""
        return tuple({id(part): part for part in self.named_tensors(images).values()}.values())

    def names(self, images: Tensor) -> dict[str, str]:
        """Return the names in the graph of the tensors of `named_tensors`."""
        first: dict[int, str] = {}
        with torch.no_grad():
            tensors = self.named_tensors(images)
        return {name: first.setdefault(id(part), name) for name, part in tensors.items()}


class TracedFocus(Traced):
    """A model split at its locations, to run it with given keypoints."""

    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the keypoints (B, K, 2) and scales (B, K)."""
        located = self.model.locate(view)
        split_points = {KEYPOINTS: located.xy}
        if located.scale is not None:
            split_points[SCALES] = located.scale
        return self.model.decide(view, located), split_points


class TracedAttention(Traced):
    """A model split at its features and maps, to run it with given maps."""

    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the features and maps that `attend` returns."""
        attended = self.model.attend(view)
        split_points = {f"{LOCAL}.{number}": part for number, part in enumerate(attended.local)}
        split_points |= {f"{WEIGHTS}.{number}": part for number, part in enumerate(attended.maps)}
        return self.model.decide(view, attended), split_points


class TracedWhole(Traced):
    """A model without split points."""

    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, without split points."""
        return self.model.observe(view), {}


def export_module(model: ImageModel) -> Traced:
    """Return the module to export for a model."""
    if Ability.KEYPOINTS in model.abilities:
        return TracedFocus(model)
    return TracedAttention(model) if Ability.GIVEN_MAPS in model.abilities else TracedWhole(model)
