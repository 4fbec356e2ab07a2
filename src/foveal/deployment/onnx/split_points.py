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
    points. A tensor that is both has one name in the graph, the first.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: ImageModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation of B images, and the tensor at each split point."""

    def named(self, images: Tensor) -> Tensors:
        """Return all named tensors for images (B, C, H, W); a tensor may have two names."""
        model = self.model
        observed, seams = self.seams(WholeView((images - model.mean) / model.std, model.black))
        parts = model.denormalised(observed).items()
        return {name: part for name, part in parts if part.shape[1]} | seams

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `named`, each once, in its order."""
        return tuple({id(part): part for part in self.named(images).values()}.values())

    def names(self, images: Tensor) -> dict[str, str]:
        """Return the names in the graph of the tensors of `named`."""
        first: dict[int, str] = {}
        with torch.no_grad():
            named = self.named(images)
        return {name: first.setdefault(id(part), name) for name, part in named.items()}


class TracedFocus(Traced):
    """A model split at its locations, to run it with given keypoints."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the keypoints (B, K, 2) and scales (B, K)."""
        located = self.model.locate(view)
        found = {KEYPOINTS: located.xy}
        if located.scale is not None:
            found[SCALES] = located.scale
        return self.model.decide(view, located), found


class TracedAttention(Traced):
    """A model split at its features and maps, to run it with given maps."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the features and maps that `attend` returns."""
        attended = self.model.attend(view)
        found = {f"{LOCAL}.{number}": part for number, part in enumerate(attended.local)}
        found |= {f"{WEIGHTS}.{number}": part for number, part in enumerate(attended.maps)}
        return self.model.decide(view, attended), found


class TracedWhole(Traced):
    """A model without split points."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation alone."""
        return self.model.observe(view), {}


def traced(model: ImageModel) -> Traced:
    """Return the module to export for a model."""
    if Ability.KEYPOINTS in model.abilities:
        return TracedFocus(model)
    return TracedAttention(model) if Ability.GIVEN_MAPS in model.abilities else TracedWhole(model)
