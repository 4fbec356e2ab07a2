"""What a graph holds of a model: its look, and the seams where the runtime can cut it."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.images import View, WholeView
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

KEYPOINTS, SCALES = "seam.keypoints", "seam.scales"  # of a focus model, as it finds them
LOCAL, WEIGHTS = "seam.local", "seam.weights"  # of an attention model, a number behind each

Tensors = dict[str, Tensor]


class Traced(nn.Module, ABC):
    """A model as a graph sees it: images in [0, 1] -> named tensors.

    These are the tensors of its explanation, patches and thumbnail in [0, 1], and the seams. A
    tensor that is both has one name, the first.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: ImageModel):
        super().__init__()
        self.model = model

    @abstractmethod
    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return what is computed of B images, and through each seam."""

    def named(self, images: Tensor) -> Tensors:
        """Return all named tensors for images (B, C, H, W); of one that has two names, both."""
        model = self.model
        observed, seams = self.seams(WholeView((images - model.mean) / model.std, model.black))
        parts = model.denormalised(observed).items()
        return {name: part for name, part in parts if part.shape[1]} | seams

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of `named`, each once, in its order."""
        return tuple({id(part): part for part in self.named(images).values()}.values())

    def names(self, images: Tensor) -> dict[str, str]:
        """Return for each name of `named` the name that its tensor has in the graph."""
        first: dict[int, str] = {}
        with torch.no_grad():
            named = self.named(images)
        return {name: first.setdefault(id(part), name) for name, part in named.items()}


class TracedFocus(Traced):
    """A model whose locations flow through a seam, so that other keypoints can be held."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the keypoints (B, K, 2) and scales (B, K)."""
        located = self.model.locate(view)
        found = {KEYPOINTS: located.xy}
        if located.scale is not None:
            found[SCALES] = located.scale
        return self.model.decide(view, located), found


class TracedAttention(Traced):
    """A model whose features and maps are seams, so that other maps can be put in."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation, and the features and maps that `attend` returns."""
        attended = self.model.attend(view)
        found = {f"{LOCAL}.{number}": part for number, part in enumerate(attended.local)}
        found |= {f"{WEIGHTS}.{number}": part for number, part in enumerate(attended.maps)}
        return self.model.decide(view, attended), found


class TracedWhole(Traced):
    """A model without seams."""

    def seams(self, view: View) -> tuple[Explanation, Tensors]:
        """Return the explanation alone."""
        return self.model.observe(view), {}


def traced(model: ImageModel) -> Traced:
    """Return a model as a graph sees it."""
    if Ability.KEYPOINTS in model.abilities:
        return TracedFocus(model)
    return TracedAttention(model) if Ability.GIVEN_MAPS in model.abilities else TracedWhole(model)
