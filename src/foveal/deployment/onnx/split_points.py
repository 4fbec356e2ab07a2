"""Modules for ONNX export, which return the named tensors of an explanation.

The names include the split points of the graph: the tensors between locating the evidence and
classifying it, such as keypoints. Foveal runs only the second part of the graph to classify from
given keypoints or maps.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.images import View, WholeView
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

SPLIT_PREFIX = "seam."  # of the names of split points; part of the file format
# Split points of a focus model.
KEYPOINTS, SCALES = "seam.keypoints", "seam.scales"
# Split points of an attention model; a number follows, such as `seam.local.0`.
LOCAL, WEIGHTS = "seam.local", "seam.weights"

Tensors = dict[str, Tensor]


class Traced(nn.Module, ABC):
    """A model as a module for export: images in [0, 1] -> named tensors.

    The named tensors are those of the model's explanation, with patches and thumbnail in [0, 1],
    and the split points. A tensor that has two names is one output, which gets the first name.

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
        """Return the named tensors for images (B, C, H, W); a tensor may have two names.

        A model that is not a classifier returns logits of no classes, which are omitted.
        """
        model = self.model
        normalised = (images - model.mean) / model.std
        explanation, split_points = self.split(WholeView(normalised, model.black))
        parts = model.denormalised(explanation).items()
        return {name: part for name, part in parts if part.shape[1]} | split_points

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `named_tensors` in order, each once."""
        tensors = self.named_tensors(images).values()
        return tuple({id(tensor): tensor for tensor in tensors}.values())

    def names(self, images: Tensor) -> dict[str, str]:
        """Return the name in the graph of each tensor of `named_tensors`, by name."""
        first_names: dict[int, str] = {}  # by the identity of the tensor
        with torch.no_grad():
            tensors = self.named_tensors(images)
        return {name: first_names.setdefault(id(tensor), name) for name, tensor in tensors.items()}


class TracedFocus(Traced):
    """A focus model, which is split at its keypoints and scales."""

    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the keypoints (B, K, 2) and scales (B, K)."""
        located = self.model.locate(view)
        split_points = {KEYPOINTS: located.xy}
        if located.scale is not None:
            split_points[SCALES] = located.scale
        return self.model.decide(view, located), split_points


class TracedAttention(Traced):
    """An attention model, which is split at its local features and attention maps."""

    def split(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the local features and the maps, numbered."""
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
    if Ability.GIVEN_MAPS in model.abilities:
        return TracedAttention(model)
    return TracedWhole(model)
