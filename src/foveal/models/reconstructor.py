"""The patch reconstructor: find keypoints, cut patches, rebuild the image from them alone."""

from torch import Tensor

from foveal.arguments import check_agreement, checked
from foveal.detectors import Detector, build_detector, detector_settings
from foveal.explanation import Explanation
from foveal.geometry import patch_mask, soft_mask
from foveal.images import View
from foveal.models.abilities import Ability
from foveal.models.decoders import (
    Decoder,
    Rebuilt,
    Seen,
    build_decoder,
    decoder_settings,
)
from foveal.models.image_model import ImageModel, Inputs
from foveal.ranges import Channels, PatchSize, Positive


class PatchReconstructor(
    ImageModel,
    coders={
        Detector: (detector_settings, build_detector),
        Decoder: (decoder_settings, build_decoder),
    },
):
    """Looks at a few small patches and rebuilds the image from them; no label is ever seen.

    A detector that lets the image be rebuilt well has found what is in it. Each patch is whole
    pixels of the image. In training the gradient reaches the detector through the patches, as in
    `FocusNet`, and through the edges of what was seen (straight-through estimator, Bengio et al.
    2013): the decoder gets hard edges, the gradient is that of soft ones.

    Args:
        detector: images -> keypoints.
        decoder: patches and their places -> image.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        softness_px: width in pixels of the soft edges.
        inputs: what images the model expects.

    Raises:
        UserError: an argument is not what is listed here.

    Example:
        >>> import torch
        >>> from foveal.detectors import ReconstructionDetector
        >>> from foveal.models.decoders import ConvDecoder
        >>> model = PatchReconstructor(ReconstructionDetector(keypoints=5), ConvDecoder(1))
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 1, 28, 28)
    """

    name = "reconstructor"
    looks = "patches"
    abilities = frozenset({Ability.KEYPOINTS, Ability.REBUILT})

    @checked
    def __init__(
        self,
        detector: Detector,
        decoder: Decoder,
        patch_size: PatchSize = 7,
        in_channels: Channels = 1,
        softness_px: Positive = 1.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, inputs)
        check_agreement("detector", detector.settings(), in_channels=in_channels)
        check_agreement(
            "decoder",
            decoder.settings(),
            keypoints=detector.keypoints,
            patch_size=patch_size,
            in_channels=in_channels,
        )
        self.detector = detector
        self.least_side = detector.least_side
        self.decoder = decoder
        self.patch_size = patch_size
        self.softness_px = softness_px

    def forward(self, images: Tensor) -> Tensor:
        """Return rebuilt images (B, C, H, W) in [0, 1] for images (B, C, H, W) in [0, 1]."""
        self.check(images)
        return self.rebuild(self.view(images))[1].images

    def observe(self, view: View) -> Explanation:
        """Locate in B images, then rebuild them from the patches there."""
        images = view.whole()
        seen, rebuilt = self.rebuild(view)
        none = images.new_zeros(images.shape[0], 0)  # len() would fix it in an export
        return Explanation(images, none, seen.keypoints, seen.patches, rebuilt=rebuilt.images)

    def rebuild(self, view: View) -> tuple[Seen, Rebuilt]:
        """Return what was seen of B images, and what was made of it."""
        images, size = view.whole(), view.size
        keypoints = self.detector(view).xy
        patches, whole = view.patches(keypoints, self.patch_size)
        mask = patch_mask(whole.detach(), self.patch_size, size)[:, None].to(images.dtype)
        if keypoints.requires_grad:
            soft = soft_mask(keypoints, self.patch_size, size, self.softness_px)
            mask = mask + (soft - soft.detach()).to(mask.dtype)
        seen = Seen(patches, whole, images * mask, mask)
        return seen, self.decoder(seen)
