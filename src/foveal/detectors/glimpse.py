"""Keypoints chosen on a thumbnail that the head also reads."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones import Backbone
from foveal.detectors.detector import Detector, Located
from foveal.detectors.heatmap import mean_location
from foveal.foundation.arguments import Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Keypoints
from foveal.images import View


class GlimpseDetector(Detector):
    """Chooses keypoints from a thumbnail of the image only.

    The locations of the patches contain no information beyond the thumbnail, which counts as
    evidence. Therefore no information can bypass the evidence, regardless of training (coarse and
    fine glimpses: Mnih et al. 2014, "Recurrent models of visual attention").

    Args:
        backbone: the thumbnail -> local features and a global vector.
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels, which
            may cover pixels partly; pixels outside complete squares are not read.
        depth: depth, from 1, of the backbone's local features that determine the keypoints.
        keypoints: number K of keypoints.
        grid: side of the grid to which the thumbnail's last local features are max-pooled for
            the context; 1 for the backbone's global vector instead.

    Raises:
        UserError: the backbone has no such depth, or an argument is invalid.
    """

    def __init__(
        self,
        backbone: Backbone,
        shrink: Annotated[float, Range(1, 1024)] = 2,
        depth: int = 2,
        keypoints: Keypoints = 3,
        grid: Annotated[int, Range(1, 64)] = 1,
    ):
        super().__init__()
        depths = len(backbone.widths)
        if not 1 <= depth <= depths:
            raise UserError(
                f"Expected a depth from 1 to {depths} of this backbone, but got {depth}."
            )
        self.backbone, self.in_channels = backbone, backbone.in_channels
        self.shrink, self.depth, self.keypoints, self.grid = shrink, depth, keypoints, grid
        self.context = backbone.width if grid == 1 else backbone.widths[-1] * grid**2
        self.heatmaps = nn.Conv2d(backbone.widths[depth - 1], keypoints, 1)

    def forward(self, view: View) -> Located:
        """Return keypoints, the thumbnail of B normalised images, and its features as context."""
        thumbnail = self.thumbnail(view)  # (B, C, h, w)
        local, whole = self.backbone(thumbnail)
        if self.grid > 1:
            whole = F.adaptive_max_pool2d(local[-1], self.grid).flatten(1)
        xy = mean_location(self.heatmaps(local[self.depth - 1]))  # (B, K, 2)
        return Located(xy, context=whole, thumbnail=thumbnail)

    def thumbnail(self, view: View) -> Tensor:
        """Return the means (B, C, h, w) of complete squares of B images.

        Raises:
            UserError: the images are smaller than one square.
        """
        images = view.whole()
        if min(view.size) < self.shrink:
            raise UserError(
                f"Expected images of at least {self.shrink}x{self.shrink} pixels, but got "
                f"{images.shape[-2]}x{images.shape[-1]}. Resize them or choose a smaller shrink."
            )
        if float(self.shrink).is_integer():
            return F.avg_pool2d(images, int(self.shrink))
        rows, columns = (_fractions(side, self.shrink, images) for side in images.shape[-2:])
        return rows @ images @ columns.T


def _fractions(side: int, shrink: float, like: Tensor) -> Tensor:
    """Return the weights of `side` pixels in the mean of each complete interval of `shrink`."""
    intervals = int(side / shrink + 1e-6)  # 32 / 1.7777 is 18
    starts = torch.arange(intervals, device=like.device)[:, None] * shrink
    pixels = torch.arange(side, device=like.device)
    overlap = torch.minimum(starts + shrink, pixels + 1) - torch.maximum(starts, pixels)
    return overlap.clamp(min=0).to(like.dtype) / shrink
