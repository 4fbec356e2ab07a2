"""Base class of focus models: locations found in the image, logits from the patches there."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.classifier import ImageClassifier
from foveal.models.images import Images, as_images


class FocusModel(ImageClassifier, ABC):
    """An image classifier that decides from patches around keypoints, and from nothing else.

    A subclass is final and implements `locate` (where) and `decide` (what).
    """

    looks = "patches"
    abilities = frozenset({Ability.CLASSES, Ability.KEYPOINTS, Ability.GIVEN_KEYPOINTS})

    @abstractmethod
    def locate(self, view: View) -> Located:
        """Return where to cut patches in B images."""

    @abstractmethod
    def decide(self, view: View, located: Located) -> Explanation:
        """Cut patches of B images at given locations and classify from them.

        Args:
            view: the images.
            located: as `locate` returns it; what is missing of it, such as scales, is the model's
                own.
        """

    def observe(self, view: View) -> Explanation:
        """Locate in B images, then decide from the patches there."""
        return self.decide(view, self.locate(view))

    def classify_at(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, classes) with the keypoints held where given.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            keypoints: (B, K, 2) in grid units.
            scales: (B, K) pixels from one sample to the next, or None for the model's own.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        self.check(images)
        return self.decide(self.view(images), Located(keypoints, scales)).logits

    @torch.no_grad()
    def explain_at(
        self, images: Images, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Return the explanation of an answer with the keypoints held where given.

        Args:
            images: (B, C, H, W), floats in [0, 1], as `explain` takes them.
            keypoints: (B, K, 2) in grid units, as many as the model finds.
            scales: (B, K) pixels from one sample to the next, or None for the model's own.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        images = as_images(images)
        self.check(images)
        return self.explained(self.decide(self.view(images), Located(keypoints, scales)), images)
