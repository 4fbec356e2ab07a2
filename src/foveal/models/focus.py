"""The focus model: locate, cut patches, classify from patches and locations."""

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from torch import Tensor

from foveal.backbones import Backbone
from foveal.detectors import DETECTORS, Detector, Located, build_detector, detector_settings
from foveal.explanation import Explanation
from foveal.foundation.arguments import Range, check_agreement
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import PatchSize
from foveal.heads import HEADS, Head, HeadOutput, build_head, head_settings
from foveal.images import View
from foveal.images.geometry import patch_mask, soft_mask
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS, spread_over_patches
from foveal.models.crops import cut_crops
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.models.inputs import Inputs
from foveal.observation.logits import Targets, class_indices, class_logits
from foveal.observation.values import TERMS

MIN_THUMBNAIL_PX = 512  # minimum long side of thumbnails that represent images read in part
# Detector and head of presets whose settings do not specify them.
PRESETS = {
    "high-res": ("high-res", "attention"),
    "reconstructor": ("", "mlp-decoder"),
    "crops": ("crops", "crops"),
}


class FocusNet(
    ImageModel,
    coders={
        Detector: (detector_settings, build_detector),
        Head: (head_settings, build_head),
    },
):
    """Classifies from a few small patches and their locations only.

    A patch without a scale consists of whole pixels of the image; in training the gradient reaches
    the detector through bilinear samples (straight-through estimator, Bengio et al. 2013). A patch
    with a scale consists of bilinear samples, or of means of squares of pixels if the detector has
    `blocks`, whose scales depend on the size of the image only.

    With a decoder as its head it rebuilds the image instead, and is trained without labels:
    keypoints from which the image can be rebuilt well show its content.

    Args:
        detector: view -> locations, and further inputs of the head.
        head: patches and locations -> logits, or the image rebuilt.
        patch_size: side of a patch in pixels, or in samples if it has a scale.
        jitter_px: standard deviation in pixels of noise on the keypoints in training, which keeps
            small differences of location from encoding the class.
        inputs: the images that the model expects.

    Raises:
        UserError: detector and head do not match, or an argument is invalid.

    Example:
        >>> import torch
        >>> from foveal.detectors import Harris
        >>> from foveal.heads import TokenHead
        >>> model = FocusNet(Harris(keypoints=3), TokenHead(keypoints=3, patch_size=5))
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 10)
    """

    name = "focus-net"
    evidence_kind = "patches"
    abilities = frozenset({Ability.CLASSES, Ability.KEYPOINTS, Ability.GIVEN_KEYPOINTS})

    def __init__(
        self,
        detector: Detector,
        head: Head,
        patch_size: PatchSize = 5,
        jitter_px: Annotated[float, Range(0, 10_000)] = 0.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(head.in_channels, head.num_classes, inputs)
        in_channels, keypoints = head.in_channels, detector.keypoints
        check_agreement("detector", vars(detector), in_channels=in_channels, patch_size=patch_size)
        check_agreement("head", vars(head), keypoints=keypoints, patch_size=patch_size)
        if head.context != detector.context:
            raise UserError(
                f"Expected a head with a context of dimension {detector.context}, as the detector "
                f"returns, but got {head.context}."
            )
        self.detector, self.head = detector, head
        self.patch_size, self.jitter_px = patch_size, jitter_px
        self.min_side, self.tasks = detector.min_side, tuple(head.tasks)
        self.abilities = _abilities(detector, head, head.additive)

    @classmethod
    def abilities_with(cls, settings: Mapping[str, object]) -> frozenset[Ability]:
        """Return the abilities of a model with given settings: see `ImageModel`."""
        detector, head = PRESETS.get(str(settings.get("name")), ("", ""))
        kind = HEADS.get(head or _name_of(settings, "head"))
        nested = settings.get("head")
        mix = (nested if isinstance(nested, Mapping) else settings).get("mix", "additive")
        return _abilities(
            DETECTORS.get(detector or _name_of(settings, "detector")),
            kind,
            kind is not None and kind.encodes and mix == "additive",
        )

    def locate(self, view: View) -> Located:
        """Return the detector's output, with noise on the keypoints in training."""
        located: Located = self.detector(view)
        if not (self.training and self.jitter_px):
            return located
        height, width = view.size
        pixel = located.xy.new_tensor([2 / width, 2 / height])  # in grid units
        return located._replace(
            xy=located.xy + torch.randn_like(located.xy) * self.jitter_px * pixel
        )

    def decide(self, view: View, given: Located) -> Explanation:
        """Cut patches of B images at given locations and classify them.

        The detector runs only if the head reads its context, or a scale is missing.
        """
        patches, located, output = self.read(view, self._complete(view, given))
        in_part = self.detector.in_part or view.in_part
        return Explanation(
            self._thumbnails(view, located) if in_part else view.whole(),
            output.logits,
            located.xy,
            patches,
            located.scale,
            thumbnail=located.thumbnail,
            weights=output.weights,
            rebuilt=output.rebuilt,
            task_logits=output.task_logits,
            contributions=output.contributions,
            blocks=self.detector.blocks,
            extent=view.size if in_part else None,
        )

    @staticmethod
    def _thumbnails(view: View, located: Located) -> Tensor:
        """Return the thumbnails (B, C, h, w) that represent images that are read in part."""
        if located.thumbnail is not None:
            return located.thumbnail
        return view.thumbnail(max(1, max(view.size) // MIN_THUMBNAIL_PX))

    def read(self, view: View, located: Located) -> tuple[Tensor, Located, HeadOutput]:
        """Return the patches, their locations, and the output of the head."""
        patches, locations = self.cut(view, located)
        if self.head.rebuilds:
            canvas = self._canvas(view, located.xy, locations.xy)
            locations = locations._replace(canvas=canvas)
        return patches, locations, self.head(patches, locations)

    def _canvas(self, view: View, xy: Tensor, patch_xy: Tensor) -> Tensor:
        """Return the patches on an empty image, with their mask as the last channel."""
        images, side = view.whole(), self.patch_size
        mask = patch_mask(patch_xy.detach(), side, view.size)[:, None].to(images.dtype)
        if xy.requires_grad:
            soft = soft_mask(xy, side, view.size, self.head.softness_px)
            mask = mask + (soft - soft.detach()).to(mask.dtype)
        return torch.cat([images * mask, mask], dim=1)

    @property
    def backbone(self) -> Backbone:
        """The backbone that encodes the patches, for `Ability.BACKBONE`."""
        return cast(Backbone, self.head.backbone)

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each patch to a logit, divided uniformly over its pixels.

        They are the exact terms of logits that the head computes as sums over patches, and add up
        to the logit minus the bias.

        Arguments and result as in `Additive.contributions`.

        Raises:
            UserError: the head's logits are not such sums, or an argument is invalid.
        """
        if Ability.CONTRIBUTIONS not in self.abilities:
            raise UserError(
                f"{CONTRIBUTIONS} require a head whose logits are sums over patches, such as "
                "'crops' with mix: additive."
            )
        explanation = self.explain(images, batch_size)
        assert explanation.contributions is not None
        terms, count = class_logits(explanation.contributions), len(explanation)
        chosen = explanation.predictions
        if targets is not None:
            chosen = class_indices(targets, count, terms.shape[-1])
        return Explanation(
            images=explanation.images,
            logits=explanation.logits,
            maps=spread_over_patches(explanation, terms[torch.arange(count), :, chosen]),
            classes=explanation.classes,
            method=CONTRIBUTIONS,
            values=TERMS,
        )

    def cut(self, view: View, located: Located) -> tuple[Tensor, Located]:
        """Return patches (B, K, C, P, P) and their locations.

        Raises:
            UserError: the images are smaller than a patch.
        """
        if self.detector.blocks:
            return cut_crops(view, located, self.detector, self.patch_size)
        if located.scale is not None:
            return view.samples(located.xy, self.patch_size, located.scale), located
        patches, xy = view.patches(located.xy, self.patch_size)
        return patches, located._replace(xy=xy)

    def _complete(self, view: View, located: Located) -> Located:
        """Return the locations with any missing context, scale or thumbnail computed."""
        detector = self.detector
        lacks_context = bool(detector.context) and located.context is None
        if lacks_context or (detector.scaled and located.scale is None):
            detected: Located = detector(view)
            return detected._replace(
                xy=located.xy, scale=detected.scale if located.scale is None else located.scale
            )
        if detector.in_part and located.thumbnail is None:
            return located._replace(thumbnail=detector.thumbnail(view))
        return located


def _abilities(
    detector: Detector | type[Detector] | None, head: Head | type[Head] | None, additive: bool
) -> frozenset[Ability]:
    """Return the abilities of a model with these parts; None for unknown parts."""
    abilities = FocusNet.abilities
    if head is not None and head.rebuilds:
        abilities = frozenset({Ability.KEYPOINTS, Ability.REBUILT})
    if detector is not None and detector.in_part:
        abilities |= {Ability.IN_PART}
    if detector is not None and detector.blocks and head is not None and head.encodes:
        abilities |= {Ability.CROPS, Ability.BACKBONE}
    return abilities | {Ability.CONTRIBUTIONS} if additive else abilities


def _name_of(settings: Mapping[str, object], part: str) -> str:
    nested = settings.get(part)
    return str(nested.get("name")) if isinstance(nested, Mapping) else ""
