"""Keypoints chosen on thumbnails of images of any size, which are read only in part."""

from typing import Annotated

import torch
from torch import Tensor, nn

from foveal.detectors.detector import Detector, Located
from foveal.detectors.score_map import CELL, ScoreMap, add_gumbel_noise, best_cells, refine
from foveal.foundation.arguments import Length, Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Channels, Keypoints, PatchSize, Widths
from foveal.images import View
from foveal.images.geometry import Size, from_px

MARGIN = 2  # cells around a region that are scored but never chosen


class HighResDetector(Detector):
    """Scores the cells of a thumbnail and takes the best local maxima.

    Its cost depends on the thumbnail, not on the image: if a thumbnail would have more than
    `thumbnail_side` squared pixels, a coarser one is scored first to choose the `regions` in which
    finer thumbnails are scored. (The regions grow with the image, but remain small compared with
    the thumbnail up to about 20,000 pixels per side.) In training, Gumbel noise on the scores
    samples K cells without replacement, by their probabilities (Kool et al. 2019, "Stochastic
    beams and where to find them").

    Args:
        keypoints: number K of keypoints.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels.
        widths: output channels of the convolutions.
        regions: number of regions that are scored in larger images; 0 for no coarser thumbnail at
            any size.
        thumbnail_side: maximum side in pixels of a square image's thumbnail.
        explore: in training, factor of the Gumbel noise on the scores.
    """

    in_part = True

    def __init__(
        self,
        keypoints: Keypoints = 20,
        patch_size: PatchSize = 50,
        in_channels: Channels = 1,
        shrink: Annotated[int, Range(1, 1024)] = 8,
        widths: Annotated[Widths, Length(2, 64)] = (8, 16, 24),
        regions: Annotated[int, Range(0, 1024)] = 0,
        thumbnail_side: Annotated[int, Range(CELL, 4096)] = 192,
        explore: Annotated[float, Range(0, 1000)] = 1.0,
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.shrink, self.widths = shrink, list(widths)
        self.regions, self.thumbnail_side, self.explore = regions, thumbnail_side, explore
        window = max(CELL, round(patch_size / shrink))
        self.fine: nn.Module = ScoreMap(in_channels, window, widths)
        self.coarse: nn.Module | None = None
        if regions:
            self.coarse = ScoreMap(in_channels, 2 * CELL, widths)

    def forward(self, view: View) -> Located:
        """Return keypoints and their scores, the thumbnail and the scores of all of its cells.

        Raises:
            UserError: the images are too small for the thumbnail or for K keypoints.
        """
        factor = self.factor(view.size)
        thumbnail = self.thumbnail(view)  # (B, C, h, w)
        if factor == 1 or self.coarse is None:
            scores = self.fine(thumbnail)  # (B, h / 2, w / 2)
            xy, score = self._choose(scores[:, None], None, 0, view.size)
            return Located(xy, score=score, thumbnail=thumbnail, score_map=scores)
        scores = self.coarse(thumbnail)
        flat = scores.flatten(1)
        best = flat.topk(min(self.regions, flat.shape[1]), dim=1)  # (B, R)
        width = scores.shape[-1]
        cells = torch.stack([best.indices % width, best.indices // width], dim=-1)
        corners = (cells * factor - MARGIN) * (CELL * self.shrink)  # (B, R, 2) in pixels
        side = (factor + 2 * MARGIN) * CELL * self.shrink
        regions = view.crops(corners, side, self.shrink)  # (B, R, C, r, r)
        fine = self.fine(regions.flatten(0, 1)).unflatten(0, regions.shape[:2])
        fine = fine + (best.values - best.values.detach())[..., None, None]
        xy, score = self._choose(fine, corners, MARGIN, view.size)
        return Located(xy, score=score, thumbnail=thumbnail, score_map=scores)

    def thumbnail(self, view: View) -> Tensor:
        """Return the thumbnail (B, C, h, w) of normalised images.

        Raises:
            UserError: the images are too small for a thumbnail.
        """
        shrink = self.shrink * self.factor(view.size)
        height, width = view.size
        if min(height, width) < shrink * CELL:
            raise UserError(
                f"Expected images of at least {shrink * CELL}x{shrink * CELL} pixels, but got "
                f"{height}x{width}. Resize them or choose a smaller shrink."
            )
        return view.thumbnail(shrink)

    def factor(self, size: Size) -> int:
        """Return the factor by which the thumbnail of images of a size is coarser than `shrink`.

        Of the factors from the smallest sufficient one to 1.5 times that, it is the one that leaves
        the fewest pixels uncovered at the right and bottom edges.
        """
        if not self.regions:
            return 1
        area = size[0] * size[1] / (self.shrink * self.thumbnail_side) ** 2
        smallest = max(1, -int(-(area**0.5) // 1))
        choices = range(smallest, smallest + smallest // 2 + 1)
        return min(choices, key=lambda f: max(side % (f * CELL * self.shrink) for side in size))

    def _choose(
        self, scores: Tensor, corners: Tensor | None, margin: int, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, K, 2) and their scores (B, K) from maps (B, R, h, w) at corners."""
        noisy = add_gumbel_noise(scores, self.explore if self.training else 0)
        indices = best_cells(noisy, self.keypoints, margin)
        cells = refine(scores.detach(), indices)
        xy_px = (cells + 0.5) * (CELL * self.shrink) - 0.5
        if corners is not None:
            region = indices // (scores.shape[-2] * scores.shape[-1])
            xy_px = xy_px + corners.gather(1, region[..., None].expand(-1, -1, 2))
        return from_px(xy_px, size), scores.flatten(1).gather(1, indices)
