"""Classifiers that read the mean of convolutional features over all positions."""

from torch import nn

from foveal.explanation import Explanation
from foveal.images import View
from foveal.models.image_model import ImageModel


class PooledNet(ImageModel):
    """Classifies from the mean of the features over all positions.

    The constructor of a subclass sets two attributes.

    Attributes:
        features: turns normalised images into features (B, F, h, w).
        head: turns their mean over positions (B, F) into logits.
    """

    features: nn.Sequential
    head: nn.Sequential

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels."""
        images = view.whole()
        pooled = self.features(images).mean(dim=(-2, -1))
        return Explanation(images, self.head(pooled))
