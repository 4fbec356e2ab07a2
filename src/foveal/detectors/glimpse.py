"""Keypoints chosen on a thumbnail that the head also reads.

A glimpse model reads two things: a coarse thumbnail of the image, and the patches chosen from it.
"""

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

    The locations of the patches contain no information beyond that of the thumbnail, and the
    thumbnail itself counts as evidence. Therefore, however the model is trained, it cannot encode
    other information about the image in the locations. (Coarse and fine glimpses: Mnih et al. 2014,
    "Recurrent models of visual attention".)

    Args:
        backbone: turns the thumbnail into local features and a global vector.
        shrink: side in pixels of the squares whose means are the pixels of the thumbnail. If it is
            not an integer, squares cover some pixels partly. Pixels at the right and bottom edges
            that do not fill a square are not read.
        depth: depth of the backbone's local features that determine the keypoints: stages are
            counted from 1, the first.
        keypoints: number K of keypoints.
        grid: the head's context is the backbone's deepest local features, max-pooled to `grid` x
            `grid` cells; with 1 it is the backbone's global vector instead.

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
        depth_count = len(backbone.widths)
        if not 1 <= depth <= depth_count:
            raise UserError(
                f"Expected a depth from 1 to {depth_count} of this backbone, but got {depth}."
            )
        self.backbone, self.in_channels = backbone, backbone.in_channels
        self.shrink, self.depth, self.keypoints, self.grid = shrink, depth, keypoints, grid
        self.context = backbone.width if grid == 1 else backbone.widths[-1] * grid**2
        self.heatmaps = nn.Conv2d(backbone.widths[depth - 1], keypoints, 1)

    def forward(self, view: View) -> Located:
        """Return keypoints for a view, the thumbnail, and the thumbnail's features as context."""
        thumbnail = self.thumbnail(view)  # (B, C, h, w)
        local, context = self.backbone(thumbnail)
        if self.grid > 1:
            context = F.adaptive_max_pool2d(local[-1], self.grid).flatten(1)
        xy = mean_location(self.heatmaps(local[self.depth - 1]))  # (B, K, 2)
        return Located(xy, context=context, thumbnail=thumbnail)

    def thumbnail(self, view: View) -> Tensor:
        """Return the thumbnail (B, C, h, w): the means of all complete squares of each image.

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
        row_weights, column_weights = (
            _averaging_weights(side, self.shrink, images) for side in images.shape[-2:]
        )
        return row_weights @ images @ column_weights.T


def _averaging_weights(side: int, shrink: float, images: Tensor) -> Tensor:
    """Return the weight of each pixel along a side in the mean of each interval.

    Args:
        side: pixels along the side of the image.
        shrink: length of an interval in pixels. Intervals follow each other from the first pixel;
            one that would end outside the image is omitted.
        images: tensor whose type and device the weights get.

    Returns:
        (intervals, side), the fraction of an interval that each pixel covers.
    """
    interval_count = int(side / shrink + 1e-6)  # 18 for 32 / 1.77777778, in spite of rounding
    starts = torch.arange(interval_count, device=images.device)[:, None] * shrink
    pixels = torch.arange(side, device=images.device)
    overlap = torch.minimum(starts + shrink, pixels + 1) - torch.maximum(starts, pixels)
    return overlap.clamp(min=0).to(images.dtype) / shrink
