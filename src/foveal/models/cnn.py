"""A baseline: a small convolutional net that reads the whole image."""

from torch import nn

from foveal.foundation.ranges import Channels, Classes, Fraction, Widths
from foveal.models.inputs import Inputs
from foveal.models.pooled import PooledNet


class SmallCNN(PooledNet):
    """Six convolutions, two poolings, and a linear layer on the mean over all positions.

    It is small enough to be trained on two CPU cores (180,000 parameters, and 19 million
    multiply-accumulate operations for a colour image of 32x32 pixels), and accurate enough to be
    the reference to which models that read only parts of the image are compared.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        widths: output channels of the convolutions; the resolution is halved after the first and
            after the middle one.
        dropout: fraction of features dropped in training before the last layer.
        inputs: the images that the model expects.
    """

    name = "cnn"

    def __init__(
        self,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        widths: Widths = (32, 48, 48, 64, 80, 96),
        dropout: Fraction = 0.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if index in (0, len(widths) // 2 - 1):
                layers.append(nn.MaxPool2d(2))
                self.min_side *= 2
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes))
