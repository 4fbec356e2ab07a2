"""The attention net: features of the whole image, weighted by attention maps."""

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
    """Classifies from local features of several depths, each weighted by an attention map.

    After Jetley et al. 2018, "Learn to Pay Attention": the global vector of the backbone is the
    query, the local features of each depth are the keys, and only their weighted sums reach the
    classifier.

    With `pc` and `softmax` the global vector has no effect (see `Attention`), and layers deeper
    than the deepest of `depths` are not trained, which is warned about: attend to the backbone's
    last depth too, or use `dp` or `sigmoid`.

    Args:
        backbone: images -> local features and a global vector.
        depths: depths, from 1, of the backbone's local features to attend to.
        compatibility: score of a location given the global vector, `pc` (parametrised) or `dp`
            (dot product); see `Attention`.
        normalise: `softmax` over all locations, or `sigmoid` at each (Yan et al. 2019).
        join: `concat` classifies from the sums of all depths together; `independent` from each
            depth separately, and averages the probabilities.
        num_classes: number of classes.
        standardise: scale each feature of the weighted sums to a mean of 0 and a variance of 1
            over the training images (batch normalisation without scale), which initially balances
            deep and shallow sums; not in the paper.
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
        deeper_untrained = compatibility == "pc" and normalise == "softmax"
        _check_depths(depths, len(backbone.widths), deeper_untrained)
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
        groups = [sum(widths)] if join == "concat" else widths
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for width in groups)

    def attend(self, view: View) -> Attended:
        """Return local features (B, C_d, h, w) and an attention map (B, h, w) for each depth."""
        features, whole = self.backbone(view.whole())
        return self._attend(dict(enumerate(features, start=1)), whole)

    def _attend(self, features: Mapping[int, Tensor], whole: Tensor) -> Attended:
        local = [features[depth] for depth in self.depths]
        pairs = zip(self.attentions, local, strict=True)
        return Attended(local, [attention(features, whole) for attention, features in pairs])

    def decide(self, view: View, given: Attended) -> Explanation:
        """Classify from local features and maps as `attend` returns them."""
        maps = at_size(given.maps, view.size, self.map_strides())
        return Explanation(view.whole(), self.combine(*given), maps=maps)

    def combine(self, local: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes) from local features and maps as `attend` returns them."""
        sums = [
            norm(weigh(features, weights, self.normalise))
            for norm, features, weights in zip(self.norms, local, maps, strict=True)
        ]
        if len(self.heads) == 1:
            return self.heads[0](self.drop(torch.cat(sums, dim=1))) * self.logit_scale
        logits = [head(self.drop(pooled)) for head, pooled in zip(self.heads, sums, strict=True)]
        log_probabilities = (torch.stack(logits) * self.logit_scale).log_softmax(dim=-1)
        return log_probabilities.logsumexp(dim=0) - torch.tensor(float(len(logits))).log()

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes) from the backbone's features: see `BackboneClassifier`."""
        return self.combine(*self._attend(features, whole))

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the classifier to a linear layer on the global vector, and the attention to uniform.

        Raises:
            UserError: it attends to depths other than the one whose mean is the global vector, or
                its weighted sums are not means under uniform attention.
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
        """Return the pixels per location of each map, or None if it is spread uniformly."""
        return [self.backbone.strides[depth - 1] for depth in self.depths]

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit.

        The logit is a sum over locations of weight times features times the class's coefficients,
        plus a constant that is the same for every image. The contributions are the exact terms of
        this sum (class activation maps with attention instead of the mean: Zhou et al. 2016,
        arXiv:1512.04150), added up over depths, each divided uniformly over the pixels of its
        location. For `independent` classifiers, whose logits are not sums, they are the
        gradient times the features.

        Arguments, result and errors as in `Additive.contributions`.
        """
        return location_contributions(self, images, targets, batch_size)

    def terms(self, images: Tensor) -> Terms:
        """Return local features of normalised images, and the function from them to logits."""
        local, maps = self.attend(WholeView(images))
        return Terms(list(local), self.map_strides(), lambda terms: self.combine(terms, maps))


def _check_depths(depths: Sequence[int], deepest: int, deeper_untrained: bool) -> None:
    """Check depths of a backbone with `deepest` depths.

    Args:
        depths: depths, from 1, to attend to.
        deepest: the last depth of the backbone.
        deeper_untrained: whether layers deeper than all `depths` would not be trained.
    """
    if not depths or len(set(depths)) < len(depths) or not set(depths) <= {*range(1, deepest + 1)}:
        raise UserError(
            f"Expected different depths from 1 to {deepest} of this backbone, but got "
            f"{list(depths)}."
        )
    if deeper_untrained and max(depths) < deepest:
        warnings.warn(
            f"With pc and softmax, layers deeper than depth {max(depths)} do not affect the "
            f"logits: attend to depth {deepest} too, or use dp or sigmoid.",
            stacklevel=3,
        )


class Attention(nn.Module):
    """Weights the locations of one depth by their compatibility with the global vector.

    `dp` is the dot product of a location's features with the global vector, projected to their
    width C, divided by the root of C. `pc` is the product of a learned vector with the sum of the
    two vectors, the global one projected if the widths differ (Jetley et al. 2018, section 3). In
    `dp` the paper projects only if the widths differ, and does not scale: a softmax over hundreds
    of locations then initially selects only one of them, and learns slowly. In `pc` the global
    vector adds a constant to all locations, which has no effect under a softmax: it is then
    omitted.

    Args:
        width: channels of the local features.
        global_width: dimension of the global vector.
        compatibility: `pc` or `dp`.
        normalise: `softmax` for weights that sum to 1 over an image, `sigmoid` for weights
            from 0 to 1 at each location.
    """

    def __init__(self, width: int, global_width: int, compatibility: str, normalise: str):
        super().__init__()
        self.softmax = normalise == "softmax"
        self.parametrised = compatibility == "pc"
        self.sought: nn.Module = nn.Identity()
        if not self.parametrised or (width != global_width and not self.softmax):
            self.sought = nn.Linear(global_width, width, bias=False)
        if self.parametrised:
            self.score = nn.Linear(width, 1, bias=False)

    def forward(self, local: Tensor, whole: Tensor) -> Tensor:
        """Return the map (B, h, w) for local features (B, C, h, w) and global (B, G)."""
        features = _by_location(local)  # (B, hw, C)
        if self.parametrised:
            scores = self.score(features).squeeze(2)  # (B, hw)
            if not self.softmax:
                scores = scores + self.score(self.sought(whole))
        else:
            scores = (features @ self.sought(whole)[:, :, None]).squeeze(2)
            scores = scores / local.shape[1] ** 0.5
        weights = scores.softmax(dim=-1) if self.softmax else scores.sigmoid()
        return weights.unflatten(1, local.shape[-2:])


def weigh(local: Tensor, weights: Tensor, normalise: str) -> Tensor:
    """Return the weighted sum over locations, or the weighted mean for `sigmoid`.

    Args:
        local: features (B, C, h, w).
        weights: an attention map (B, h, w).
        normalise: `softmax` or `sigmoid`, as in the map.

    Returns:
        (B, C).
    """
    total = (weights.flatten(1)[:, None] @ _by_location(local)).squeeze(1)
    return total if normalise == "softmax" else total / weights[0].numel()


def _by_location(local: Tensor) -> Tensor:
    """Return features (B, C, h, w) as (B, hw, C).

    This is their memory layout in channels_last, and that of their gradients. Gradients of products
    with (B, C, hw) have another layout, which halves the speed of training.
    """
    return local.flatten(2).transpose(1, 2)
