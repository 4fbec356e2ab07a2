"""Classifiers of the mean of convolutional features over all positions."""

from torch import nn

from foveal.explanation import Explanation
from foveal.images import View
from foveal.models.image_model import ImageModel


class PooledNet(ImageModel):
    """Classifies from the mean of the features over all positions.

    A subclass sets in its constructor:

    Attributes:
        features: normalised images -> features (B, F, h, w).
        head: their mean over positions (B, F) -> logits.
    """

    features: nn.Sequential
    head: nn.Sequential

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels."""
        images = view.whole()
        return Explanation(images, self.head(self.features(images).mean(dim=(-2, -1))))
