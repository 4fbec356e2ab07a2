"""Honest training: the places where a focus model looks are kept from telling the class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.images import View, WholeView
from foveal.models.focus import FocusNet
from foveal.models.image_model import ImageModel
from foveal.training.augment import places_before
from foveal.training.losses import classification_loss
from foveal.training.settings import Recipe

WIDTHS = (0.1, 0.3, 1.0)  # of the kernels, in grid units


class HonestPlaces(nn.Module):
    """The terms of the loss that keep the class out of the places, and the probes they need.

    A probe is the one that `position_leakage` measures with, trained along; as one that was
    trained along can be fooled, the metric always trains a fresh one.

    Args:
        model: the focus model that is trained.
        keypoints: number K of its keypoints.
        recipe: whose `honesty` says which terms, and how much.
    """

    def __init__(self, model: ImageModel, keypoints: int, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        numbers = keypoints * (4 if recipe.honesty.still else 2)
        self.probes = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(numbers, affine=False),  # small differences of place tell much
                nn.Linear(numbers, 128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.ReLU(),
                nn.Linear(128, model.num_classes),
            )
            for _ in range(recipe.honesty.probes if recipe.honesty.adversary else 0)
        )

    def settled(self, done: float) -> bool:
        """Return whether the places stand still when a share `done` of the training is over."""
        settle = self.recipe.honesty.settle
        return settle > 0 and done >= 1 - settle

    def observe(self, model: FocusNet, view: View, done: float) -> Explanation:
        """Return what a focus model computes of images; settled places learn no more.

        They are those of use: with the detector's own statistics, not the batch's, by which
        places move a little.
        """
        if not self.settled(done):
            return model.observe(view)
        model.detector.eval()
        with torch.no_grad():
            located = model.locate(view)
        return model.decide(view, located)

    def forward(
        self,
        model: ImageModel,
        images: Tensor,
        observed: Explanation,
        labels: Tensor,
        moves: Tensor | None,
        done: float,
    ) -> Tensor:
        """Return the sum of the terms for a batch.

        Args:
            model: the focus model.
            images: (B, C, H, W), normalised.
            observed: what the model computed of them.
            labels: (B,) classes.
            moves: (B, 2, 3), how the images were moved (`Augment.draw_moves`).
            done: share of the training that is over.
        """
        weights, loss = self.recipe.honesty, images.new_zeros(())
        strength = min(1.0, done / weights.ramp) if weights.ramp else 1.0
        assert observed.keypoints is not None
        if not self.settled(done):
            loss = loss + self._told(observed.keypoints, labels, moves, strength)
        if weights.swap:
            others = torch.randperm(len(labels), device=labels.device)
            held = Located(observed.keypoints.detach(), observed.scales)
            seen = model.decide(WholeView(images[others]), held)
            told = classification_loss(seen.logits, labels[others], self.recipe.training)
            loss = loss + weights.swap * told
        return loss

    def _told(
        self, keypoints: Tensor, labels: Tensor, moves: Tensor | None, strength: float
    ) -> Tensor:
        """Return what is paid for what keypoints (B, K, 2) tell of the labels (B,)."""
        weights, loss = self.recipe.honesty, keypoints.new_zeros(())
        places = keypoints.flatten(1)
        if weights.still:
            before = places_before(keypoints, moves).flatten(1)
            places = torch.cat([places, before], dim=1)
        for probe in self.probes:  # each learns for itself; together they pull by the weight
            pull = strength * weights.adversary / len(self.probes)
            loss = loss + F.cross_entropy(probe(reversed_gradient(places, pull)), labels)
        if weights.dependence:
            loss = loss + strength * weights.dependence * dependence(places, labels)
        return loss


def reversed_gradient(values: Tensor, weight: float) -> Tensor:
    """Return the values, through which a gradient goes back turned round and times `weight`."""
    return values.detach() * (1 + weight) - values * weight


def dependence(places: Tensor, labels: Tensor) -> Tensor:
    """Return how much places tell of classes: the alignment of their centred kernels, 0 to 1.

    Between places stand Gaussian kernels of several widths, between classes that of equality
    (centred kernel alignment; Cortes, Mohri & Rostamizadeh 2012, "Algorithms for learning kernels
    based on centered alignment", definition 4). Independent places come near 0, but in a batch of
    B images not nearer than some 1 / sqrt(B).

    Args:
        places: (B, D), such as flattened keypoints in grid units.
        labels: (B,) classes.
    """
    apart = (places[:, None] - places).square().sum(dim=-1)
    near = torch.stack([(-apart / (2 * width**2)).exp() for width in WIDTHS]).sum(dim=0)
    first, second = _centred(near), _centred((labels[:, None] == labels).to(places.dtype))
    norms = (first.square().sum() * second.square().sum()).clamp_min(1e-12).sqrt()
    return (first * second).sum() / norms


def _centred(kernel: Tensor) -> Tensor:
    rows, columns = kernel.mean(dim=0, keepdim=True), kernel.mean(dim=1, keepdim=True)
    return kernel - rows - columns + kernel.mean()
