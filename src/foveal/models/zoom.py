"""The zoom model: find a place and a scale for each patch, classify from the patches alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.arguments import checked
from foveal.errors import UserError
from foveal.explanation import Explanation
from foveal.geometry import extract_patches
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.models.patch_classifier import Encoder, Mix, PatchClassifier
from foveal.precision import at_least_single
from foveal.ranges import (
    Channels,
    Classes,
    Fraction,
    Keypoints,
    PatchSize,
    Positive,
    Width,
    Widths,
)

GRID = 7  # features are resized to this many rows and columns before places are read off them


class ZoomNet(FocusModel):
    """Looks at a few patches whose place and scale it learns, and decides from them alone.

    A patch is a spatial transformer's attention window (Jaderberg et al. 2015, "Spatial
    transformer networks", equation 2): P x P bilinear samples, `scale` pixels apart, around a
    keypoint. It always lies inside the image, and the gradient reaches place and scale.

    At a scale above 1 a patch spans more pixels than it samples. Its evidence counts the whole
    square it spans: more than was read, never less. The classifier sees the patches and their
    places; a scale shows itself only in what a patch holds.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in samples.
        in_channels: channels of the images.
        num_classes: number of classes.
        min_scale: least spacing of the samples in pixels.
        max_scale: greatest spacing; less in images that a patch would not fit into.
        widths: output channels of the detector's convolutions, each of stride 2.
        width: numbers in a patch's token.
        mix: how the patch classifier joins the tokens, `concat` or `attention`.
        encoder: how it encodes a patch, `mlp` or `conv`.
        dropout: share of features dropped in training.
        inputs: what images the model expects.

    Raises:
        UserError: min_scale > max_scale, or an argument is not what is listed here.
    """

    name = "zoom"

    @checked
    def __init__(
        self,
        keypoints: Keypoints = 3,
        patch_size: PatchSize = 5,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        min_scale: Positive = 1.0,
        max_scale: Positive = 3.0,
        widths: Widths = (16, 24),
        width: Width = 128,
        mix: Mix = "concat",
        encoder: Encoder = "mlp",
        dropout: Fraction = 0.0,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        if min_scale > max_scale:
            raise UserError(
                f"Expected min_scale <= max_scale, but got {min_scale} and {max_scale}."
            )
        self.keypoints = keypoints
        self.patch_size = patch_size
        self.min_scale = min_scale
        self.max_scale = max_scale
        layers: list[nn.Module] = []
        channels = in_channels
        for out in widths:
            layers += [
                nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels = out
        self.features = nn.Sequential(*layers)
        self.windows = nn.Linear(channels * GRID**2, keypoints * 3)
        self.classifier = PatchClassifier(
            keypoints, patch_size, in_channels, num_classes, width, mix, encoder, dropout
        )

    def find(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, K, 2) and scales (B, K) for normalised images (B, C, H, W).

        Raises:
            UserError: the images are smaller than a patch at the least scale.
        """
        height, width = images.shape[-2:]
        reach = (self.patch_size - 1) / 2  # from a patch's centre to its last sample
        # With the greatest scale the patch just fits between the outermost pixel centres.
        fitting = (min(height, width) - 1) / (2 * reach) if reach else self.max_scale
        if fitting < self.min_scale:
            needed = int(2 * reach * self.min_scale + 1.999)
            raise UserError(
                f"Expected images of at least {needed}x{needed} pixels (one patch), but got "
                f"{height}x{width}. Resize them or choose a smaller patch_size."
            )
        features = self.features(images)
        features = F.interpolate(features, (GRID, GRID), mode="bilinear", align_corners=False)
        windows = self.windows(features.flatten(1)).unflatten(1, (self.keypoints, 3))
        windows = at_least_single(windows)
        span = min(self.max_scale, fitting) - self.min_scale
        scales = self.min_scale + span * windows[..., 2].sigmoid()  # (B, K)
        extent = torch.tensor([width, height], dtype=windows.dtype, device=images.device)
        room = (extent - 1 - 2 * reach * scales[..., None]) / extent  # (B, K, 2), none below 0
        return windows[..., :2].tanh() * room, scales

    def decide(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Classify from bilinear patches of given places and scales, or of the least scale."""
        if scales is None:
            scales = torch.full_like(keypoints[..., 0], self.min_scale)
        patches = extract_patches(images, keypoints, self.patch_size, scales)  # (B, K, C, P, P)
        return Explanation(images, self.classifier(patches, keypoints), keypoints, patches, scales)
