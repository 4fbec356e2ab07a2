"""A model family: a linear layer on the mean of each quarter of the image."""

import torch.nn.functional as F
from torch import nn

from foveal.explanation import Explanation
from foveal.images import View
from foveal.models import ImageModel, Inputs


class MeansNet(ImageModel):
    """Classifies from the mean value of each quarter of the image.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        inputs: the images that the model expects.
    """

    name = "means"

    def __init__(self, in_channels: int = 1, num_classes: int = 2, inputs: Inputs = Inputs()):
        super().__init__(in_channels, num_classes, inputs)
        self.linear = nn.Linear(4 * in_channels, num_classes)

    def observe(self, view: View) -> Explanation:
        """Classify B images from the means of their quarters."""
        images = view.whole()
        means = F.adaptive_avg_pool2d(images, 2).flatten(1)  # (B, 4 C)
        return Explanation(images, self.linear(means))
