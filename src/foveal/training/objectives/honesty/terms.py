"""Honesty terms: the parts of a loss that keep a model's keypoints from revealing the class.

They are the adversarial, dependence and swap terms. Their strength depends on the progress of
training.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.focus import FocusNet
from foveal.models.image_model import ImageModel
from foveal.training.augment import undo_moves
from foveal.training.objectives.honesty.adversarial import Probes
from foveal.training.objectives.honesty.dependence import dependence
from foveal.training.objectives.honesty.settings import Honesty
from foveal.training.objectives.honesty.swap import swap_loss
from foveal.training.settings import Recipe


@dataclass(frozen=True)
class Step:
    """Inputs of the honesty terms in one training step.

    Attributes:
        view: B normalised images, after augmentation.
        observed: the model's explanation of these images.
        labels: (B,) class indices.
        moves: (B, 2, 3), the affine transforms that moved the images (`Augment.draw_moves`); None
            if the images were not moved.
        progress: fraction of training that is complete.
    """

    view: View
    observed: Explanation
    labels: Tensor
    moves: Tensor | None
    progress: float


def honesty_terms(model: ImageModel, recipe: Recipe) -> "HonestyTerms | None":
    """Return the honesty terms of a recipe, or None if it has none.

    Raises:
        UserError: the model is not a focus model that cuts its patches from whole images without
            a scale or context, or the recipe mixes images.
    """
    if recipe.honesty == Honesty():
        return None
    detector = None
    if Ability.GIVEN_KEYPOINTS in model.abilities:
        detector = cast(FocusNet, model).detector
    unsupported = detector is None or detector.context or detector.scaled or detector.in_part
    if detector is None or unsupported or detector.blocks:
        raise UserError("Honest training (`honesty`) is for focus models: 'focus'.")
    if recipe.augment.mix:
        raise UserError("Honest training (`honesty`) cannot use mixed images (`augment.mix`).")
    return HonestyTerms(model, detector.keypoints, recipe)


class HonestyTerms(nn.Module):
    """The terms of a recipe's loss that keep a focus model's keypoints from revealing the class.

    Args:
        model: the focus model that is trained.
        keypoints: number K of its keypoints.
        recipe: the recipe; `honesty` holds the terms' weights.
    """

    def __init__(self, model: ImageModel, keypoints: int, recipe: Recipe):
        super().__init__()
        self.recipe = recipe
        self.settings = recipe.honesty
        # x and y of each keypoint; with `still`, also those before augmentation.
        values = keypoints * (4 if self.settings.still else 2)
        count = self.settings.probes if self.settings.adversary else 0
        self.adversarial = Probes(values, model.num_classes, count)

    def is_frozen(self, progress: float) -> bool:
        """Return whether the detector is frozen after a fraction `progress` of training."""
        settle = self.settings.settle
        return settle > 0 and progress >= 1 - settle

    def observe(self, model: ImageModel, view: View, progress: float) -> Explanation:
        """Return the model's explanation of images; a frozen detector gets no gradient.

        A frozen detector normalises by its own statistics instead of the batch's, so that
        keypoints are the same as in inference.
        """
        focus = cast(FocusNet, model)
        if not self.is_frozen(progress):
            return focus.observe(view)
        focus.detector.eval()
        with torch.no_grad():
            located = focus.locate(view)
        return focus.decide(view, located)

    def forward(self, model: ImageModel, step: Step) -> Tensor:
        """Return the weighted sum of the terms, a scalar.

        While the detector is frozen, only the swap term is computed, because the others have a
        gradient only for the detector and the probes.
        """
        weights = self.settings
        loss = step.view.whole().new_zeros(())
        if not self.is_frozen(step.progress):
            loss = loss + self._location_terms(step)
        if weights.swap:
            focus = cast(FocusNet, model)
            images = step.view.whole()
            training = self.recipe.training
            swapped = swap_loss(focus, images, step.observed, step.labels, training)
            loss = loss + weights.swap * swapped
        return loss

    def _location_terms(self, step: Step) -> Tensor:
        """Return the sum of the adversarial and dependence terms.

        The ramp scales their effect on the detector; the probes always learn at full strength.
        """
        weights = self.settings
        strength = min(1.0, step.progress / weights.ramp) if weights.ramp else 1.0
        assert step.observed.keypoints is not None
        locations = step.observed.keypoints.flatten(1)
        loss = locations.new_zeros(())
        if weights.still:
            original = undo_moves(step.observed.keypoints, step.moves).flatten(1)
            locations = torch.cat([locations, original], dim=1)
        for term in self.adversarial.losses(locations, step.labels, strength * weights.adversary):
            loss = loss + term
        if weights.dependence:
            loss = loss + strength * weights.dependence * dependence(locations, step.labels)
        return loss
