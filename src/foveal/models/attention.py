"""The attention net: it looks everywhere, weighs what it sees, and shows the weights."""

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
from foveal.models.contributions import Terms, contribute
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.models.inputs import Inputs
from foveal.observation.logits import Targets

COMPATIBILITIES = ("pc", "dp")
NORMALISATIONS = ("softmax", "sigmoid")
JOINS = ("concat", "independent")


class AttentionNet(ImageModel, coders={Backbone: (backbone_settings, build_backbone)}):
    """Classifies from local features of several depths, each weighed by an attention map.

    After Jetley et al. 2018, "Learn to Pay Attention": the global vector of the backbone says
    what to look for, each place of a depth says what is there, and only the weighted sums of the
    local features reach the classifier.

    With `pc` and `softmax` the global vector has no say (see `Attention`), and what is deeper
    than the deepest of `depths` is not trained: attend to the backbone's last depth too, or take
    `dp` or `sigmoid`. A warning says so.

    Args:
        backbone: images -> local features and a global vector.
        depths: numbers, from 1, of the backbone's local features to attend to.
        compatibility: of a place with the global vector, `pc` (parametrised) or `dp` (dot
            product); see `Attention`.
        normalise: `softmax` over all places, or `sigmoid` at each (Yan et al. 2019).
        join: `concat` classifies from all depths' sums at once; `independent` from each alone,
            and the answer is the mean of their probabilities.
        num_classes: number of classes.
        standardise: give each feature of the weighted sums a mean of 0 and a variance of 1 over
            the training images (batch normalisation without scale), so that deep and shallow
            sums weigh alike at first; the paper does not.
        dropout: share of features dropped in training before the last layer.
        logit_scale: multiplies the logits; a small one keeps large learning rates from a rash
            classifier (Page 2019).
        inputs: what images the model expects.

    Raises:
        UserError: an argument is not what is listed here.

    Example:
        >>> import torch
        >>> from foveal.backbones import VGGBackbone
        >>> model = AttentionNet(VGGBackbone(3, [[16], [32], [32]]), depths=[1, 2])
        >>> model.explain(torch.rand(1, 3, 32, 32)).maps.shape
        torch.Size([1, 2, 32, 32])
    """

    name = "attention"
    looks = "maps"
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
        known = range(1, len(backbone.widths) + 1)
        if not depths or len(set(depths)) < len(depths) or not set(depths) <= set(known):
            raise UserError(
                f"Expected different depths from 1 to {known[-1]}, which this backbone has, "
                f"but got {list(depths)}."
            )
        if compatibility == "pc" and normalise == "softmax" and max(depths) < known[-1]:
            warnings.warn(
                f"With pc and softmax, what is deeper than depth {max(depths)} has no part in the "
                f"answer: attend to depth {known[-1]} too, or take dp or sigmoid.",
                stacklevel=2,
            )
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
        """Return for each depth local features (B, C_d, h, w) and an attention map (B, h, w)."""
        features, whole = self.backbone(view.whole())
        return self._weighed(dict(enumerate(features, start=1)), whole)

    def _weighed(self, features: Mapping[int, Tensor], whole: Tensor) -> Attended:
        local = [features[depth] for depth in self.depths]
        pairs = zip(self.attentions, local, strict=True)
        return Attended(local, [attention(seen, whole) for attention, seen in pairs])

    def decide(self, view: View, given: Attended) -> Explanation:
        """Classify from local features and maps as `attend` returns them."""
        maps = at_size(given.maps, view.size, self.map_strides())
        return Explanation(view.whole(), self.combine(*given), maps=maps)

    def combine(self, local: Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
        """Return logits (B, classes) from local features and maps as `attend` returns them."""
        sums = [
            norm(weigh(seen, weights, self.normalise))
            for norm, seen, weights in zip(self.norms, local, maps, strict=True)
        ]
        if len(self.heads) == 1:
            return self.heads[0](self.drop(torch.cat(sums, dim=1))) * self.logit_scale
        answers = [head(self.drop(seen)) for head, seen in zip(self.heads, sums, strict=True)]
        chances = (torch.stack(answers) * self.logit_scale).log_softmax(dim=-1)
        return chances.logsumexp(dim=0) - torch.tensor(float(len(answers))).log()

    def classify(self, features: Mapping[int, Tensor], whole: Tensor) -> Tensor:
        """Return logits (B, classes) from what the backbone returns: see `BackboneClassifier`."""
        return self.combine(*self._weighed(features, whole))

    @torch.no_grad()
    def start_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Set the classifier to a linear layer on the global vector, and the attention to uniform.

        Raises:
            UserError: it attends to more than the depth of which the global vector is the mean, or
                does not sum its features as the mean does.
        """
        deepest = self.depths == (len(self.backbone.widths),) and self.backbone.averages
        norm = self.norms[0]
        if not deepest or self.normalise != "softmax" or not isinstance(norm, nn.Identity):
            raise UserError(
                "training.linear_start is for attention to a backbone's deepest features alone, by "
                "softmax and not standardised, of a backbone that averages them."
            )
        for scoring in self.attentions[0].parameters():
            scoring.zero_()
        head = cast(nn.Linear, self.heads[0])
        head.weight.copy_(weight / self.logit_scale)
        head.bias.copy_(bias / self.logit_scale)

    def map_strides(self) -> list[int | None]:
        """Return the pixels per location of each map, or None where it lies evenly."""
        return [self.backbone.strides[depth - 1] for depth in self.depths]

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return what each place adds to a logit: where the attention's weight goes, and for whom.

        The logit is a sum over places: weight times features times the class's coefficients, and
        a constant that is the same for every image. So these are no estimate but the sum's terms
        (with attention in the place of the mean, class activation maps: Zhou et al. 2016,
        arXiv:1512.04150). All depths are added up, each term divided evenly over the pixels of
        its place. Of `independent` classifiers, whose answer is no sum, it is the gradient times
        the features.

        Args:
            images: (B, C, H, W), B of any size, floats in [0, 1], as `explain` takes them.
            targets: (B,) numbers of the classes asked about; the answers if not given.
            batch_size: images in one forward pass; bounds the memory.

        Returns:
            An explanation with signed maps (B, 1, H, W), in one forward pass.

        Raises:
            UserError: the images are not of the model's shape or type, or the targets are not
                one of its classes each.
        """
        return contribute(self, images, targets, batch_size)

    def terms(self, images: Tensor) -> Terms:
        """Return local features of normalised images, and what sums them up to logits."""
        local, maps = self.attend(WholeView(images))
        return Terms(list(local), self.map_strides(), lambda seen: self.combine(seen, maps))


class Attention(nn.Module):
    """Weighs the places of one depth by how well they agree with the global vector.

    `dp` is the dot product of a place's features with the global vector, mapped to their width C,
    divided by the root of C; `pc` the product of a learned vector with the sum of both, the global
    vector mapped where the widths differ (Jetley et al. 2018, section 3). The paper maps in `dp`
    too only where widths differ, and divides by nothing: then a softmax over hundreds of places
    begins as a choice of one of them, and learns slowly. In `pc` the global vector adds the same
    to every place of an image, and a softmax ignores that: then it is left out, which changes no
    answer.

    Args:
        width: channels of the local features.
        global_width: numbers in the global vector.
        compatibility: `pc` or `dp`.
        normalise: `softmax` makes the weights of an image sum to 1, `sigmoid` makes each from 0
            to 1.
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
        seen = places(local)  # (B, hw, C)
        if self.parametrised:
            scores = self.score(seen).squeeze(2)  # (B, hw)
            if not self.softmax:
                scores = scores + self.score(self.sought(whole))
        else:
            scores = (seen @ self.sought(whole)[:, :, None]).squeeze(2) / local.shape[1] ** 0.5
        weights = scores.softmax(dim=-1) if self.softmax else scores.sigmoid()
        return weights.unflatten(1, local.shape[-2:])


def weigh(local: Tensor, weights: Tensor, normalise: str) -> Tensor:
    """Return the weighted sum over places, or for `sigmoid` the weighted mean.

    Args:
        local: features (B, C, h, w).
        weights: an attention map (B, h, w).
        normalise: `softmax` or `sigmoid`, as the map was made.

    Returns:
        (B, C).
    """
    total = (weights.flatten(1)[:, None] @ places(local)).squeeze(1)
    return total if normalise == "softmax" else total / weights[0].numel()


def places(local: Tensor) -> Tensor:
    """Return features (B, C, h, w) as (B, hw, C).

    In channels_last that is how they lie in memory, and so do their gradients: products of
    (B, C, hw) would send back gradients of another layout, which halves the speed of training.
    """
    return local.flatten(2).transpose(1, 2)
