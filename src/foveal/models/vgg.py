"""VGG-16 for small images."""

from torch import nn

from foveal.explanation import Explanation
from foveal.foundation.errors import extra
from foveal.foundation.ranges import Channels, Classes, Fraction
from foveal.images import View
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs


class VGG16(ImageModel):
    """The convolutions of VGG-16 (Simonyan & Zisserman 2015, configuration D), batch-normalised.

    torchvision's layers, with poolings that round up, which keeps at least a pixel of small and odd
    sizes, and with the mean over all positions and one linear layer instead of three, which were
    designed for 224x224 pixels and 1000 classes. 14.7 million parameters.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.
        dropout: fraction of features dropped in training before the last layer.
        inputs: the images that the model expects.
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
        self.features = make_layers(cfgs["D"], batch_norm=True)
        self.features[0] = nn.Conv2d(in_channels, self.features[0].out_channels, 3, padding=1)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
            if isinstance(layer, nn.Conv2d):
                layer.bias = None  # the batch normalisation behind it has one
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(512, num_classes))

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels."""
        images = view.whole()
        features = self.features(images)  # (B, 512, H/32, W/32)
        return Explanation(images, self.head(features.mean(dim=(-2, -1))))
