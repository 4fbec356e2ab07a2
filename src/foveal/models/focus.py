"""The focus model: locate, cut patches, classify from these and their locations."""

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from foveal.arguments import Range, check_agreement
from foveal.detectors import DETECTORS, Detector, Located, build_detector, detector_settings
from foveal.errors import UserError
from foveal.explanation import Explanation
from foveal.geometry import patch_mask, soft_mask
from foveal.heads import HEADS, Head, HeadOutput, build_head, head_settings
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs
from foveal.ranges import PatchSize


class FocusNet(
    ImageModel,
    coders={
        Detector: (detector_settings, build_detector),
        Head: (head_settings, build_head),
    },
):
    """Looks at a few small patches and decides from them alone.

    Without a scale each patch is whole pixels of the image; in training the gradient then reaches
    the detector through the bilinear samples beside them (straight-through estimator, Bengio et
    al. 2013). With a scale it is bilinear samples.

    With a decoder for a head it rebuilds the image instead, and needs no labels to learn: a
    detector that lets the image be rebuilt well has found what is in it.

    Args:
        detector: view -> locations, and what else the head may read.
        head: patches and locations -> logits, or the image rebuilt.
        patch_size: side of a patch in pixels, or in samples where it has a scale.
        jitter_px: in training, standard deviation in pixels of noise on the keypoints; with it, a
            class can hardly be told by fine differences of location, so the patches must tell it.
        inputs: what images the model expects.

    Raises:
        UserError: detector and head do not fit, or an argument is not what is listed here.

    Example:
        >>> import torch
        >>> from foveal.detectors import Harris
        >>> from foveal.heads import TokenHead
        >>> model = FocusNet(Harris(keypoints=3), TokenHead(keypoints=3, patch_size=5))
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 10)
    """

    name = "focus-net"
    looks = "patches"
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
                f"Expected a head that reads a context of {detector.context} numbers, which the "
                f"detector returns, but got one of {head.context}."
            )
        self.detector, self.head = detector, head
        self.patch_size, self.jitter_px = patch_size, jitter_px
        self.least_side, self.tasks = detector.least_side, tuple(head.tasks)
        self.abilities = _abilities(head.rebuilds, detector.in_part)

    @classmethod
    def abilities_with(cls, settings: Mapping[str, object]) -> frozenset[Ability]:
        """Return the abilities of a model of such settings: see `ImageModel`."""
        detector = DETECTORS.get(_name_of(settings, "detector"))
        head = HEADS.get(_name_of(settings, "head"))
        preset = settings.get("name")
        decodes = preset == "reconstructor" or (head is not None and head.rebuilds)
        in_part = preset == "high-res" or (detector is not None and detector.in_part)
        return _abilities(decodes, in_part)

    def locate(self, view: View) -> Located:
        """Return what the detector returns; in training, with noise on the keypoints."""
        located: Located = self.detector(view)
        if not (self.training and self.jitter_px):
            return located
        height, width = view.size
        pixel = located.xy.new_tensor([2 / width, 2 / height])  # in grid units
        return located._replace(
            xy=located.xy + torch.randn_like(located.xy) * self.jitter_px * pixel
        )

    def decide(self, view: View, given: Located) -> Explanation:
        """Cut patches of B images at given locations and classify from them.

        The detector runs only where the head reads its context, or a scale is missing.
        """
        patches, located, output = self.read(view, self._completed(view, given))
        in_part = self.detector.in_part
        return Explanation(
            located.thumbnail if in_part and located.thumbnail is not None else view.whole(),
            output.logits,
            located.xy,
            patches,
            located.scale,
            thumbnail=located.thumbnail,
            weights=output.weights,
            rebuilt=output.rebuilt,
            task_logits=output.task_logits,
            extent=view.size if in_part else None,
        )

    def read(self, view: View, located: Located) -> tuple[Tensor, Located, HeadOutput]:
        """Return the patches, where they were cut, and what the head computes of them."""
        patches, cut = self.cut(view, located)
        if self.head.rebuilds:
            cut = cut._replace(canvas=self._canvas(view, located.xy, cut.xy))
        return patches, cut, self.head(patches, cut)

    def _canvas(self, view: View, xy: Tensor, cut: Tensor) -> Tensor:
        """Return the patches on an empty image, and a last channel that is 1 where they are."""
        images, side = view.whole(), self.patch_size
        mask = patch_mask(cut.detach(), side, view.size)[:, None].to(images.dtype)
        if xy.requires_grad:
            soft = soft_mask(xy, side, view.size, self.head.softness_px)
            mask = mask + (soft - soft.detach()).to(mask.dtype)
        return torch.cat([images * mask, mask], dim=1)

    def cut(self, view: View, located: Located) -> tuple[Tensor, Located]:
        """Return patches (B, K, C, P, P), and where they were cut.

        Raises:
            UserError: the images are smaller than a patch.
        """
        if located.scale is not None:
            return view.samples(located.xy, self.patch_size, located.scale), located
        patches, xy = view.patches(located.xy, self.patch_size)
        return patches, located._replace(xy=xy)

    def _completed(self, view: View, located: Located) -> Located:
        """Return locations with what they lack: context, scale or thumbnail."""
        detector = self.detector
        lacks_context = bool(detector.context) and located.context is None
        if lacks_context or (detector.scaled and located.scale is None):
            own: Located = detector(view)
            return own._replace(
                xy=located.xy, scale=own.scale if located.scale is None else located.scale
            )
        if detector.in_part and located.thumbnail is None:
            return located._replace(thumbnail=detector.thumbnail(view))
        return located


def _abilities(decodes: bool, in_part: bool) -> frozenset[Ability]:
    """Return the abilities of a model whose head decodes images, or classifies them."""
    able = FocusNet.abilities
    if decodes:
        able = frozenset({Ability.KEYPOINTS, Ability.REBUILT})
    return able | {Ability.IN_PART} if in_part else able


def _name_of(settings: Mapping[str, object], part: str) -> str:
    named = settings.get(part)
    return str(named.get("name")) if isinstance(named, Mapping) else ""
