"""The baseline: a backbone and a linear layer."""

from torch import Tensor, nn

from foveal.backbones import Backbone, backbone_settings, build_backbone
from foveal.explanation import Look
from foveal.models.classifier import ImageClassifier
from foveal.models.image_model import Inputs


class PlainNet(ImageClassifier, coders={Backbone: (backbone_settings, build_backbone)}):
    """Classifies from a backbone's global vector: what attention over it is compared with.

    Args:
        backbone: images -> a global vector (its local features are not used).
        num_classes: number of classes.
        dropout: share of features dropped in training before the last layer.
        logit_scale: multiplies the logits; a small one keeps large learning rates from a rash
            classifier (Page 2019).
        inputs: what images the model expects.
    """

    name = "plain"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 10,
        dropout: float = 0.0,
        logit_scale: float = 1.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(backbone.in_channels, num_classes, inputs)
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.width, num_classes))
        self.logit_scale = logit_scale

    def look(self, images: Tensor) -> Look:
        """Classify normalised images (B, C, H, W) from all of their pixels."""
        _, whole = self.backbone(images)  # (B, width)
        return Look(self.head(whole) * self.logit_scale)
