"""What every focus model is: places found in the image, an answer from the patches there."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.models.abilities import Ability
from foveal.models.classifier import ImageClassifier
from foveal.models.images import Images, as_images


class FocusModel(ImageClassifier, ABC):
    """An image classifier that decides from patches around keypoints, and from nothing else.

    A subclass is final and implements `find` (where) and `decide` (what).
    """

    looks = "patches"
    abilities = frozenset({Ability.CLASSES, Ability.KEYPOINTS, Ability.GIVEN_KEYPOINTS})

    @abstractmethod
    def find(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return where to look in normalised images (B, C, H, W).

        Returns:
            Keypoints (B, K, 2) in grid units, and the patches' scales (B, K) in pixels from one
            sample to the next, or None for plain slices.
        """

    @abstractmethod
    def decide(self, images: Tensor, keypoints: Tensor, scales: Tensor | None) -> Explanation:
        """Cut patches at given places of normalised images and classify from them.

        Args:
            images: (B, C, H, W), normalised.
            keypoints: (B, K, 2) in grid units.
            scales: (B, K) as `find` returns them, or None for the model's own.
        """

    def observe(self, images: Tensor) -> Explanation:
        """Find places in normalised images (B, C, H, W), then decide from the patches there."""
        return self.decide(images, *self.find(images))

    def classify_at(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Tensor:
        """Return logits (B, classes) with the keypoints held where given.

        Args:
            images: (B, C, H, W), floats in [0, 1].
            keypoints: (B, K, 2) in grid units.
            scales: (B, K) as `find` returns them, or None for the model's own.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        self.check(images)
        return self.decide(self.normalised(images), keypoints, scales).logits

    @torch.no_grad()
    def explain_at(
        self, images: Images, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Return the explanation of an answer with the keypoints held where given.

        Args:
            images: (B, C, H, W), floats in [0, 1], as `explain` takes them.
            keypoints: (B, K, 2) in grid units, as many as the model finds.
            scales: (B, K) as `find` returns them, or None for the model's own.

        Raises:
            UserError: the images are not of the model's shape or type.
        """
        images = as_images(images)
        self.check(images)
        return self.explained(self.decide(self.normalised(images), keypoints, scales), images)
