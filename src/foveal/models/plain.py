"""The baseline: a backbone and a linear layer."""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from foveal.backbones import BACKBONES, Backbone, backbone_settings, build_backbone
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError, split_name
from foveal.foundation.ranges import Classes, Fraction, Positive
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS, Terms, location_contributions
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.models.inputs import Inputs
from foveal.observation.logits import Targets


class PlainNet(ImageModel, coders={Backbone: (backbone_settings, build_backbone)}):
    """Classifies from a backbone's global vector, as a baseline for attention.

    Args:
        backbone: images -> a global vector (its local features are not used).
        num_classes: number of classes.
        dropout: fraction of features dropped in training before the last layer.
        logit_scale: factor of the logits; a small one allows larger learning rates (Page 2019).
        inputs: the images that the model expects.
    """

    name = "plain"
    abilities = frozenset({Ability.CLASSES, Ability.BACKBONE, Ability.CONTRIBUTIONS})
    depths: Sequence[int] = ()

    def __init__(
        self,
        backbone: Backbone,
        num_classes: Classes = 10,
        dropout: Fraction = 0.0,
        logit_scale: Positive = 1.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(backbone.in_channels, num_classes, inputs)
        self.backbone = backbone
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.width, num_classes))
        self.logit_scale = logit_scale
        self.abilities = _abilities(backbone)

    @classmethod
    def abilities_with(cls, settings: Mapping[str, object]) -> frozenset[Ability]:
        """Return the abilities of a model with given settings: see `ImageModel`."""
        name, _ = split_name("backbone", BACKBONES, settings.get("backbone"))
        return _abilities(BACKBONES[name])

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels."""
        images = view.whole()
        _, whole = self.backbone(images)  # (B, width)
        return Explanation(images, self.classify({}, whole))

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes) from the backbone's features: see `BackboneClassifier`."""
        return self.head(whole) * self.logit_scale

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the classifier to a linear layer on the global vector: see `BackboneClassifier`."""
        linear = cast(nn.Linear, self.head[1])
        linear.weight.copy_(weight / self.logit_scale)
        linear.bias.copy_(bias / self.logit_scale)

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit: scaled class activation maps.

        The logit is the mean over locations of a linear function of their features. The terms of
        this mean are the contributions (Zhou et al. 2016, arXiv:1512.04150), which add up to the
        logit minus the bias. Grad-CAM at the last layer of such a net is the positive part of the
        same map times a constant.

        Arguments and result as in `Additive.contributions`.

        Raises:
            UserError: the backbone's global vector is not the mean of its deepest features, or an
                argument is invalid.
        """
        if Ability.CONTRIBUTIONS not in self.abilities:
            raise UserError(
                f"{CONTRIBUTIONS} require a backbone with average pooling, such as "
                "efficientnet-lite0 or timm; this one uses max pooling."
            )
        return location_contributions(self, images, targets, batch_size)

    def terms(self, images: Tensor) -> Terms:
        """Return the deepest features of normalised images, and the function that sums them up."""
        local, _ = self.backbone(images)

        def decide(features: Sequence[Tensor]) -> Tensor:
            return self.head(features[0].mean(dim=(-2, -1))) * self.logit_scale

        return Terms(local[-1:], self.backbone.strides[-1:], decide)


def _abilities(backbone: Backbone | type[Backbone]) -> frozenset[Ability]:
    """Return the abilities; logits are sums over locations if the backbone averages features."""
    return PlainNet.abilities - (set() if backbone.averages else {Ability.CONTRIBUTIONS})
