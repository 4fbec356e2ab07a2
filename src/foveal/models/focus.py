"""The focus model: a detector chooses locations, and a head classifies the patches cut there.

A preset is a function in `foveal.models.presets` that builds such a model from plain arguments.
"""

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

# Images that are read in part are represented in explanations by thumbnails, whose long side has at
# least this many pixels.
MIN_THUMBNAIL_PX = 512
# Names of the detector and the head of presets that choose these themselves; empty if the settings
# name the part.
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

    A patch without a scale is a square of pixels of the image. Cutting it has no gradient with
    respect to its location, so in training the gradient of bilinear samples at the same location is
    passed on to the detector (straight-through estimator, Bengio et al. 2013). A patch with a scale
    consists of bilinear samples, `scale` pixels apart. If the detector has `blocks`, its samples
    are means of squares of pixels instead, and the scales depend only on the size of the image.

    With a decoder as its head the model rebuilds the image instead, and is trained without labels:
    the patches from which the image can be rebuilt best are those that show its content.

    Args:
        detector: chooses locations in a view of images; its further outputs are read by the head.
        head: turns patches and locations into logits, or into the rebuilt image.
        patch_size: side of a patch in pixels, or in samples if it has a scale.
        jitter_px: standard deviation in pixels of the noise that is added to keypoints in training,
            so that small differences in location cannot encode the class.
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
        """Return the abilities that a model with these settings would have, without building it.

        The settings are those of this class or of a preset.
        """
        detector_name, head_name = PRESETS.get(str(settings.get("name")), ("", ""))
        detector = DETECTORS.get(detector_name or _part_name(settings, "detector"))
        head = HEADS.get(head_name or _part_name(settings, "head"))
        # Only `CropHead` can be additive, depending on its `mix`.
        nested = settings.get("head")
        mix_settings = nested if isinstance(nested, Mapping) else settings
        mix = mix_settings.get("mix", "additive")
        additive = head is not None and head.encodes and mix == "additive"
        return _abilities(detector, head, additive)

    def locate(self, view: View) -> Located:
        """Return the detector's output, with noise on the keypoints in training."""
        located: Located = self.detector(view)
        if not (self.training and self.jitter_px):
            return located
        height, width = view.size
        pixel_size = located.xy.new_tensor([2 / width, 2 / height])  # in grid units
        noise = torch.randn_like(located.xy) * self.jitter_px * pixel_size
        return located._replace(xy=located.xy + noise)

    def decide(self, view: View, given: Located) -> Explanation:
        """Cut patches of B images at given locations and classify them.

        Args:
            view: the images.
            given: the locations. The detector runs only to compute a context that the head reads or
                scales that patches need, if these are None.
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
        """Return the thumbnails (B, C, h, w) shown in explanations of images read in part."""
        if located.thumbnail is not None:
            return located.thumbnail
        return view.thumbnail(max(1, max(view.size) // MIN_THUMBNAIL_PX))

    def read(self, view: View, located: Located) -> tuple[Tensor, Located, HeadOutput]:
        """Cut patches at given locations, and return them, their locations, and the head's output.

        The locations are those at which the patches were actually cut.
        """
        patches, locations = self.cut(view, located)
        if self.head.rebuilds:
            canvas = self._canvas(view, located.xy, locations.xy)
            locations = locations._replace(canvas=canvas)
        return patches, locations, self.head(patches, locations)

    def _canvas(self, view: View, keypoints: Tensor, patch_centres: Tensor) -> Tensor:
        """Return the canvas (B, C + 1, H, W): patches on an empty image, and their mask.

        Args:
            view: the images.
            keypoints: (B, K, 2), the keypoints that the detector chose; the gradient of the mask
                reaches these.
            patch_centres: (B, K, 2), where the patches were cut.
        """
        images, side = view.whole(), self.patch_size
        mask = patch_mask(patch_centres.detach(), side, view.size)[:, None].to(images.dtype)
        if keypoints.requires_grad:
            soft = soft_mask(keypoints, side, view.size, self.head.softness_px)
            # The values of the hard mask, with the gradient of the soft one.
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

        The head computes each logit as a sum over patches plus a bias. The contributions are the
        terms of this sum, so they add up to the logit minus the bias.

        The arguments and the result are those of `Additive.contributions`.

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
        terms = class_logits(explanation.contributions)  # (B, K, classes)
        image_count = len(explanation)
        classes = explanation.predictions
        if targets is not None:
            classes = class_indices(targets, image_count, terms.shape[-1])
        values = terms[torch.arange(image_count), :, classes]  # (B, K)
        return Explanation(
            images=explanation.images,
            logits=explanation.logits,
            maps=spread_over_patches(explanation, values),
            classes=explanation.classes,
            method=CONTRIBUTIONS,
            values=TERMS,
        )

    def cut(self, view: View, located: Located) -> tuple[Tensor, Located]:
        """Return patches (B, K, C, P, P), and the locations at which they were cut.

        Patches without a scale are moved to the nearest whole pixels inside the image.

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
        """Return the locations, with the context, scale and thumbnail computed if they are missing.

        The keypoints, and the scales if there are any, are not changed.
        """
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
    """Return the abilities of a model that consists of these parts.

    Args:
        detector: the detector or its class; None if it is unknown.
        head: the head or its class; None if it is unknown.
        additive: whether the head's logits are sums over patches.
    """
    abilities = FocusNet.abilities
    if head is not None and head.rebuilds:
        abilities = frozenset({Ability.KEYPOINTS, Ability.REBUILT})
    if detector is not None and detector.in_part:
        abilities |= {Ability.IN_PART}
    if detector is not None and detector.blocks and head is not None and head.encodes:
        abilities |= {Ability.CROPS, Ability.BACKBONE}
    return abilities | {Ability.CONTRIBUTIONS} if additive else abilities


def _part_name(settings: Mapping[str, object], part: str) -> str:
    """Return the name of a part in settings; empty if there is none."""
    nested = settings.get(part)
    return str(nested.get("name")) if isinstance(nested, Mapping) else ""
