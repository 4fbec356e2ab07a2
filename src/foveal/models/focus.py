"""The focus model: find keypoints, cut patches, classify from these and their places."""

from typing import Annotated

import torch
from torch import Tensor

from foveal.arguments import Range, check_agreement, checked
from foveal.detectors import Detector, build_detector, detector_settings
from foveal.explanation import Explanation
from foveal.geometry import look_at
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.models.patch_classifier import Encoder, Hidden, Mix, PatchClassifier
from foveal.ranges import Channels, Classes, Fraction, PatchSize, Width


class FocusNet(FocusModel, coders={Detector: (detector_settings, build_detector)}):
    """Looks at a few small patches and decides from them alone.

    Each patch is whole pixels of the image. In training the gradient reaches the detector
    through the bilinear samples beside them (straight-through estimator, Bengio et al. 2013).

    Args:
        detector: images -> keypoints.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        width: numbers in a patch's token.
        mix: how the patch classifier joins the tokens, `concat` or `attention`.
        encoder: how it encodes a patch, `mlp` or `conv`.
        dropout: share of features dropped in training.
        jitter_px: in training, standard deviation in pixels of noise on the keypoints; with it, a
            class can hardly be told by fine differences of place, so the patches must tell it.
        hidden: widths of the layers between the patches' tokens and the logits.
        inputs: what images the model expects.

    Example:
        >>> import torch
        >>> from foveal.detectors import Harris
        >>> model = FocusNet(Harris(keypoints=3), patch_size=5)
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 10)
    """

    name = "focus"

    @checked
    def __init__(
        self,
        detector: Detector,
        patch_size: PatchSize = 5,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        width: Width = 128,
        mix: Mix = "concat",
        encoder: Encoder = "mlp",
        dropout: Fraction = 0.0,
        jitter_px: Annotated[float, Range(0, 10_000)] = 0.0,
        hidden: Hidden = (128,),
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        check_agreement("detector", detector.settings(), in_channels=in_channels)
        self.patch_size = patch_size
        self.least_side = detector.least_side
        self.jitter_px = jitter_px
        self.detector = detector
        self.classifier = PatchClassifier(
            detector.keypoints,
            patch_size,
            in_channels,
            num_classes,
            width,
            mix,
            encoder,
            dropout,
            hidden=hidden,
        )

    def find(self, images: Tensor) -> tuple[Tensor, None]:
        """Return the detector's keypoints (B, K, 2) for normalised images; slices have no scale."""
        keypoints = self.detector(images)
        if self.training and self.jitter_px:
            width, height = images.shape[-1], images.shape[-2]
            unit = keypoints.new_tensor([2 / width, 2 / height])  # one pixel in grid units
            keypoints = keypoints + torch.randn_like(keypoints) * self.jitter_px * unit
        return keypoints, None

    def decide(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Classify from whole-pixel patches at the places nearest to the keypoints (B, K, 2)."""
        patches, whole = look_at(images, keypoints, self.patch_size)
        return Explanation(images, self.classifier(patches, whole), whole, patches)
