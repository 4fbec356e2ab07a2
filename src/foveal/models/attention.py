"""The attention net: features of the whole image, weighted by attention maps.

Depth d is the d-th stage of the backbone, counted from 1. Local features are the output of a stage,
one vector per location; the global vector describes the image as a whole.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from foveal.backbones import Backbone, backbone_settings, build_backbone
from foveal.explanation import Explanation
from foveal.foundation.arguments import OneOf
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Classes, Fraction, Positive
from foveal.images import View, WholeView
from foveal.models.abilities import Ability
from foveal.models.attention_maps import Attended, at_size
from foveal.models.contributions import Terms, location_contributions
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.models.inputs import Inputs
from foveal.observation.logits import Targets

COMPATIBILITIES = ("pc", "dp")
NORMALISATIONS = ("softmax", "sigmoid")
JOINS = ("concat", "independent")


class AttentionNet(ImageModel, coders={Backbone: (backbone_settings, build_backbone)}):
    """Classifies from local features at several depths, each weighted by an attention map.

    This follows Jetley et al. 2018, "Learn to Pay Attention": the backbone's global vector is the
    query, and the local features of each depth are both the keys and the values. The classifier
    reads only the weighted sums of the local features.

    With `pc` and `softmax` the global vector has no effect on the maps (`Attention` explains why).
    Stages deeper than all `depths` then do not affect the logits and are not trained, and a warning
    is issued. To avoid this, attend to the backbone's last depth too, or use `dp` or `sigmoid`.

    Args:
        backbone: turns images into local features and a global vector.
        depths: depths of the local features to attend to.
        compatibility: how a location is scored given the global vector: `pc` (parametrised) or `dp`
            (dot product), as `Attention` defines them.
        normalise: how scores become weights: `softmax` over all locations, or `sigmoid` at each
            location (Yan et al. 2019).
        join: `concat` classifies from the weighted sums of all depths together; `independent`
            classifies from each depth separately, and averages the probabilities.
        num_classes: number of classes.
        standardise: whether to scale each feature of the weighted sums to a mean of 0 and a
            variance of 1 over the training images (batch normalisation without a learned scale).
            The sums of all depths then initially have equal influence. The paper omits this.
        dropout: fraction of features dropped in training before the last layer.
        logit_scale: factor of the logits; a small one allows larger learning rates (Page 2019).
        inputs: the images that the model expects.

    Raises:
        UserError: an argument is invalid.

    Example:
        >>> import torch
        >>> from foveal.backbones import VGGBackbone
        >>> model = AttentionNet(VGGBackbone(3, [[16], [32], [32]]), depths=[1, 2])
        >>> model.explain(torch.rand(1, 3, 32, 32)).maps.shape
        torch.Size([1, 2, 32, 32])
    """

    name = "attention"
    evidence_kind = "maps"
    abilities = frozenset(
        {Ability.CLASSES, Ability.MAPS, Ability.GIVEN_MAPS, Ability.BACKBONE, Ability.CONTRIBUTIONS}
    )

    def __init__(
        self,
        backbone: Backbone,
        depths: Sequence[int] = (1, 2, 3),
        compatibility: Annotated[str, OneOf(COMPATIBILITIES)] = "dp",
        normalise: Annotated[str, OneOf(NORMALISATIONS)] = "softmax",
        join: Annotated[str, OneOf(JOINS)] = "concat",
        standardise: bool = False,
        num_classes: Classes = 10,
        dropout: Fraction = 0.0,
        logit_scale: Positive = 1.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(backbone.in_channels, num_classes, inputs)
        ignores_global = compatibility == "pc" and normalise == "softmax"
        _check_depths(depths, len(backbone.widths), ignores_global)
        self.backbone = backbone
        self.depths = tuple(depths)
        self.normalise = normalise
        widths = [backbone.widths[depth - 1] for depth in depths]
        self.attentions = nn.ModuleList(
            Attention(width, backbone.width, compatibility, normalise) for width in widths
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, affine=False) if standardise else nn.Identity()
            for width in widths
        )
        self.drop = nn.Dropout(dropout)
        self.logit_scale = logit_scale
        head_widths = [sum(widths)] if join == "concat" else widths
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for width in head_widths)

    def attend(self, view: View) -> Attended:
        """Return local features (B, C_d, h, w) and a map (B, h, w) for each of `depths`."""
        local, global_vector = self.backbone(view.whole())
        return self._attend(dict(enumerate(local, start=1)), global_vector)

    def _attend(self, local_by_depth: Mapping[int, Tensor], global_vector: Tensor) -> Attended:
        """Return the local features of `depths`, and their maps, given those of all depths."""
        local = [local_by_depth[depth] for depth in self.depths]
        pairs = zip(self.attentions, local, strict=True)
        maps = [attention(features, global_vector) for attention, features in pairs]
        return Attended(local, maps)

    def decide(self, view: View, given: Attended) -> Explanation:
        """Classify from local features and maps, given as `attend` returns them.

        The view provides only the images that the explanation shows.
        """
        maps = at_size(given.maps, view.size, self.map_strides())
        return Explanation(view.whole(), self.combine(*given), maps=maps)

    def combine(self, local: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes).

        Args:
            local: local features (B, C_d, h, w) of each of `depths`.
            maps: their attention maps (B, h, w).
        """
        sums = [
            norm(weigh(features, weights, self.normalise))
            for norm, features, weights in zip(self.norms, local, maps, strict=True)
        ]
        if len(self.heads) == 1:
            return self.heads[0](self.drop(torch.cat(sums, dim=1))) * self.logit_scale
        logits = [head(self.drop(pooled)) for head, pooled in zip(self.heads, sums, strict=True)]
        log_probabilities = (torch.stack(logits) * self.logit_scale).log_softmax(dim=-1)
        # The logarithm of the probabilities' mean over depths.
        return log_probabilities.logsumexp(dim=0) - torch.tensor(float(len(logits))).log()

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes) from features that the backbone has already computed.

        Args:
            features: local features (B, C_d, h, w) by depth, at least those of `depths`.
            whole: the global vector (B, width), which describes the whole image.
        """
        return self.combine(*self._attend(features, whole))

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the weights, in place, so that the logits are a linear layer on the global vector.

        The attention becomes uniform. The weighted sum of the deepest features is then their mean,
        which is the global vector of backbones with average pooling.

        Args:
            weight: weights (classes, width) of that layer.
            bias: biases (classes,) of that layer.

        Raises:
            UserError: the net does not attend to exactly the deepest features, their mean is not
                the global vector, the attention is not a softmax, or the sums are standardised.
        """
        deepest = len(self.backbone.widths)
        reads_mean = self.depths == (deepest,) and self.backbone.averages
        norm = self.norms[0]
        if not reads_mean or self.normalise != "softmax" or not isinstance(norm, nn.Identity):
            raise UserError(
                f"training.linear_start needs model.depths=[{deepest}], softmax attention "
                "(model.normalise=softmax), model.standardise=false and a backbone with average "
                "pooling."
            )
        for parameter in self.attentions[0].parameters():
            parameter.zero_()
        head = cast(nn.Linear, self.heads[0])
        head.weight.copy_(weight / self.logit_scale)
        head.bias.copy_(bias / self.logit_scale)

    def map_strides(self) -> list[int | None]:
        """Return the pixels of the image per location of each map, as in `Backbone.strides`."""
        return [self.backbone.strides[depth - 1] for depth in self.depths]

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit.

        With `concat` a logit is a constant, the same for every image, plus a sum over depths and
        locations. Each term of the sum is the attention weight of a location times the dot product
        of its features with the class's coefficients in the last layer. These terms are the
        contributions; they are class activation maps (Zhou et al. 2016, arXiv:1512.04150) with
        attention weights in place of a mean. Each term is divided uniformly over the pixels of its
        location, and those of all depths are added.

        With `independent` logits are not such sums. The contributions are then the gradient of the
        logit times the features.

        The arguments, the result and the errors are those of `Additive.contributions`.
        """
        return location_contributions(self, images, targets, batch_size)

    def terms(self, images: Tensor) -> Terms:
        """Return local features of normalised images (B, C, H, W), and a function to the logits.

        The function keeps the attention maps of these images constant.
        """
        local, maps = self.attend(WholeView(images))
        return Terms(list(local), self.map_strides(), lambda features: self.combine(features, maps))


def _check_depths(depths: Sequence[int], deepest: int, ignores_global: bool) -> None:
    """Check the depths to attend to, and warn if deeper stages would not be trained.

    Args:
        depths: depths to attend to.
        deepest: the last depth of the backbone.
        ignores_global: whether the global vector, which the deepest stage determines, has no effect
            on the maps.
    """
    if not depths or len(set(depths)) < len(depths) or not set(depths) <= {*range(1, deepest + 1)}:
        raise UserError(
            f"Expected different depths from 1 to {deepest} of this backbone, but got "
            f"{list(depths)}."
        )
    if ignores_global and max(depths) < deepest:
        warnings.warn(
            f"With pc and softmax, layers deeper than depth {max(depths)} do not affect the "
            f"logits: attend to depth {deepest} too, or use dp or sigmoid.",
            stacklevel=3,
        )


class Attention(nn.Module):
    """Weights the locations of one depth by their compatibility with the global vector.

    The scores of locations are those of Jetley et al. 2018, section 3:

    - `dp`: the dot product of a location's features, of width C, with the global vector, which a
      learned matrix projects to the same width, divided by the square root of C. The paper projects
      only if the widths differ, and does not divide. There a softmax over hundreds of locations
      initially selects only one of them and learns slowly, hence both changes.
    - `pc`: the dot product of a learned vector with the sum of a location's features and the global
      vector, which is projected only if the widths differ. The global vector thus adds the same
      value to the scores of all locations. Under a softmax this has no effect, so it is omitted.

    Args:
        width: channels C of the local features.
        global_width: dimension of the global vector.
        compatibility: `pc` or `dp`.
        normalise: `softmax` for weights that sum to 1 over an image, `sigmoid` for weights
            from 0 to 1 at each location.
    """

    def __init__(self, width: int, global_width: int, compatibility: str, normalise: str):
        super().__init__()
        self.softmax = normalise == "softmax"
        self.parametrised = compatibility == "pc"
        self.sought: nn.Module = nn.Identity()  # turns the global vector into the query
        if not self.parametrised or (width != global_width and not self.softmax):
            self.sought = nn.Linear(global_width, width, bias=False)
        if self.parametrised:
            self.score = nn.Linear(width, 1, bias=False)

    def forward(self, local: Tensor, global_vector: Tensor) -> Tensor:
        """Return the attention map (B, h, w).

        Args:
            local: local features (B, C, h, w).
            global_vector: (B, global_width).
        """
        features = _by_location(local)  # (B, hw, C)
        if self.parametrised:
            scores = self.score(features).squeeze(2)  # (B, hw)
            if not self.softmax:
                scores = scores + self.score(self.sought(global_vector))
        else:
            scores = (features @ self.sought(global_vector)[:, :, None]).squeeze(2)
            scores = scores / local.shape[1] ** 0.5
        weights = scores.softmax(dim=-1) if self.softmax else scores.sigmoid()
        return weights.unflatten(1, local.shape[-2:])


def weigh(local: Tensor, weights: Tensor, normalise: str) -> Tensor:
    """Return the sum (B, C) of local features over locations, weighted by an attention map.

    Args:
        local: local features (B, C, h, w).
        weights: the attention map (B, h, w).
        normalise: how the map was normalised, `softmax` or `sigmoid`. For `sigmoid`, whose weights
            do not sum to 1, the sum is divided by the number of locations.
    """
    total = (weights.flatten(1)[:, None] @ _by_location(local)).squeeze(1)
    return total if normalise == "softmax" else total / weights[0].numel()


def _by_location(local: Tensor) -> Tensor:
    """Return features (B, C, h, w) as (B, hw, C).

    In the memory format channels_last this is only a view. Products with (B, C, hw) instead would
    have gradients in another memory layout, and training would take twice as long.
    """
    return local.flatten(2).transpose(1, 2)
