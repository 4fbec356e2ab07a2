"""A baseline without attention: a backbone and a linear layer."""

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
    """Classifies from a backbone's global vector, as a baseline for models with attention.

    Args:
        backbone: turns images into a global vector; its local features are not used.
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
        """Return the abilities that a model with these settings would have, without building it."""
        name, _ = split_name("backbone", BACKBONES, settings.get("backbone"))
        return _abilities(BACKBONES[name])

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels."""
        images = view.whole()
        _, global_vector = self.backbone(images)  # (B, width)
        return Explanation(images, self.classify({}, global_vector))

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes) from features that the backbone has already computed.

        Args:
            features: not used.
            whole: the global vector (B, width), which describes the whole image.
        """
        return self.head(whole) * self.logit_scale

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights, in place, so that the logits are a linear layer on the global vector.

        Args:
            weight: weights (classes, width) of that layer.
            bias: biases (classes,) of that layer.
        """
        _dropout, last = self.head
        linear = cast(nn.Linear, last)
        linear.weight.copy_(weight / self.logit_scale)
        linear.bias.copy_(bias / self.logit_scale)

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit, as a scaled class activation map.

        The logit is the mean over locations of a linear function of their features. The terms of
        this mean are the contributions (Zhou et al. 2016, arXiv:1512.04150); they add up to the
        logit minus the bias. Grad-CAM at the last layer of such a net returns the positive part of
        the same map, times a constant.

        The arguments and the result are those of `Additive.contributions`.

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
        """Return the deepest features of normalised images, and how logits follow from them."""
        local, _ = self.backbone(images)

        def decide(features: Sequence[Tensor]) -> Tensor:
            return self.head(features[0].mean(dim=(-2, -1))) * self.logit_scale

        return Terms(local[-1:], self.backbone.strides[-1:], decide)


def _abilities(backbone: Backbone | type[Backbone]) -> frozenset[Ability]:
    """Return the abilities of a model with this backbone.

    Its logits are sums over locations only if the global vector is the mean of local features.
    """
    if backbone.averages:
        return PlainNet.abilities
    return PlainNet.abilities - {Ability.CONTRIBUTIONS}
