"""VGG-16 for small images."""

from torch import nn

from foveal.foundation.errors import extra
from foveal.foundation.ranges import Channels, Classes, Fraction
from foveal.models.inputs import Inputs
from foveal.models.pooled import PooledNet


class VGG16(PooledNet):
    """The convolutions of VGG-16 (Simonyan & Zisserman 2015, configuration D), batch-normalised.

    These are torchvision's layers, with two changes. Poolings round up, so that small images of odd
    sizes keep at least one pixel. The three linear layers, which were designed for 224x224 pixels
    and 1000 classes, are replaced by the mean over all positions and one linear layer. There are
    14.7 million parameters.

    The arguments are those of `SmallCNN`, except its widths.
    """

    name = "vgg16"

    def __init__(
        self,
        in_channels: Channels = 3,
        num_classes: Classes = 10,
        dropout: Fraction = 0.5,
        inputs: Inputs = Inputs(),
    ):
        with extra("torchvision", "vision"):
            from torchvision.models.vgg import cfgs, make_layers

        super().__init__(in_channels, num_classes, inputs)
        features = make_layers(cfgs["D"], batch_norm=True)
        features[0] = nn.Conv2d(in_channels, features[0].out_channels, 3, padding=1)
        for layer in features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
            if isinstance(layer, nn.Conv2d):
                layer.bias = None  # the batch normalisation that follows adds one
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.features = features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, num_classes))
