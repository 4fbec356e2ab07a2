"""The glimpse model: a thumbnail says where to look, thumbnail and patches decide."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.arguments import Range, checked
from foveal.backbones import Backbone, backbone_settings, build_backbone
from foveal.detectors.heatmap import mean_place
from foveal.errors import UserError
from foveal.explanation import Explanation
from foveal.geometry import look_at
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.models.patch_classifier import Encoder, Mix, PatchClassifier
from foveal.ranges import Classes, Fraction, Keypoints, PatchSize, Width


class GlimpseNet(FocusModel, coders={Backbone: (backbone_settings, build_backbone)}):
    """Sees a thumbnail of the image and a few patches that it chooses by it, and nothing else.

    The strict focus model: where the patches lie can tell no more than the thumbnail tells
    already, and the thumbnail counts as evidence. So nothing can be smuggled past the evidence,
    whatever the training (a glimpse's coarse and fine view: Mnih et al. 2014, "Recurrent models
    of visual attention").

    Args:
        backbone: the thumbnail -> local features and a global vector.
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels, of
            which a part of a pixel may be covered; what no whole square covers is not seen.
        depth: number, from 1, of the backbone's local features that say where to look.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        num_classes: number of classes.
        width: numbers in a patch's token.
        mix: how the tokens are joined, `concat` or `attention`.
        encoder: how a patch is encoded, `mlp` or `conv`.
        dropout: share of features dropped in training.
        grid: side of the grid in which the thumbnail's last local features are read for the
            answer, the greatest in each cell; 1 reads the backbone's global vector.
        inputs: what images the model expects.

    Raises:
        UserError: the backbone has no such depth, or an argument is not what is listed here.

    Example:
        >>> import torch
        >>> from foveal.backbones import VGGBackbone
        >>> model = GlimpseNet(VGGBackbone(1, [[8], [16]]), shrink=4)
        >>> explanation = model.explain(torch.rand(1, 1, 28, 28))
        >>> tuple(explanation.thumbnail.shape), tuple(explanation.patches.shape)
        ((1, 1, 7, 7), (1, 3, 1, 5, 5))
    """

    name = "glimpse"

    @checked
    def __init__(
        self,
        backbone: Backbone,
        shrink: Annotated[float, Range(1, 1024)] = 2,
        depth: int = 2,
        keypoints: Keypoints = 3,
        patch_size: PatchSize = 5,
        num_classes: Classes = 10,
        width: Width = 128,
        mix: Mix = "concat",
        encoder: Encoder = "mlp",
        dropout: Fraction = 0.0,
        grid: Annotated[int, Range(1, 64)] = 1,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(backbone.in_channels, num_classes, inputs)
        depths = len(backbone.widths)
        if not 1 <= depth <= depths:
            raise UserError(
                f"Expected a depth from 1 to {depths}, which this backbone has, but got {depth}."
            )
        self.backbone = backbone
        self.shrink = shrink
        self.depth = depth
        self.grid = grid
        self.patch_size = patch_size
        self.heatmaps = nn.Conv2d(backbone.widths[depth - 1], keypoints, 1)
        self.classifier = PatchClassifier(
            keypoints,
            patch_size,
            backbone.in_channels,
            num_classes,
            width,
            mix,
            encoder,
            dropout,
            context=backbone.width if grid == 1 else backbone.widths[-1] * grid**2,
        )

    def find(self, images: Tensor) -> tuple[Tensor, None]:
        """Return keypoints (B, K, 2) for normalised images; slices have no scale."""
        local, _ = self.backbone(self.thumbnail(images))
        return self._places(local), None

    def decide(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Classify from the thumbnail and whole-pixel patches nearest to the keypoints."""
        thumbnail = self.thumbnail(images)
        return self._decide(images, keypoints, thumbnail, *self.backbone(thumbnail))

    def observe(self, images: Tensor) -> Explanation:
        """Find places and decide, with one pass over the thumbnail."""
        thumbnail = self.thumbnail(images)
        local, whole = self.backbone(thumbnail)
        return self._decide(images, self._places(local), thumbnail, local, whole)

    def thumbnail(self, images: Tensor) -> Tensor:
        """Return the means (B, C, h, w) of whole squares of images (B, C, H, W).

        Raises:
            UserError: the images are smaller than one square.
        """
        if min(images.shape[-2:]) < self.shrink:
            raise UserError(
                f"Expected images of at least {self.shrink}x{self.shrink} pixels, but got "
                f"{images.shape[-2]}x{images.shape[-1]}. Resize them or choose a smaller shrink."
            )
        if float(self.shrink).is_integer():
            return F.avg_pool2d(images, int(self.shrink))
        down, across = (_shares(side, self.shrink, images) for side in images.shape[-2:])
        return down @ images @ across.T

    def _places(self, local: Sequence[Tensor]) -> Tensor:
        return mean_place(self.heatmaps(local[self.depth - 1]))

    def _decide(
        self,
        images: Tensor,
        keypoints: Tensor,
        thumbnail: Tensor,
        local: Sequence[Tensor],
        whole: Tensor,
    ) -> Explanation:
        if self.grid > 1:
            whole = F.adaptive_max_pool2d(local[-1], self.grid).flatten(1)
        patches, places = look_at(images, keypoints, self.patch_size)
        logits = self.classifier(patches, places, whole)
        return Explanation(images, logits, places, patches, thumbnail=thumbnail)


def _shares(side: int, shrink: float, like: Tensor) -> Tensor:
    """Return how much each of `side` pixels adds to the mean of each whole stretch of `shrink`."""
    stretches = int(side / shrink + 1e-6)  # 32 / 1.7777 are 18
    begins = torch.arange(stretches, device=like.device)[:, None] * shrink
    pixels = torch.arange(side, device=like.device)
    covered = torch.minimum(begins + shrink, pixels + 1) - torch.maximum(begins, pixels)
    return covered.clamp(min=0).to(like.dtype) / shrink
