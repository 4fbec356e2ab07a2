"""Keypoints chosen on thumbnails of images of any size, which are read only in part.

A cell is a square of 2 x 2 thumbnail pixels, which is scored as a possible centre of a patch.
"""

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

# Cells at each edge of a region that are scored but never chosen: they show the surroundings.
MARGIN = 2


class HighResDetector(Detector):
    """Scores the cells of a thumbnail, and chooses the best local maxima as keypoints.

    The cost depends on the size of the thumbnail, not on that of the image. If the thumbnail of an
    image would have more than `thumbnail_side` squared pixels, the scores of a coarser thumbnail
    first select `regions` of the image, and only these are scored at the resolution of `shrink`.
    (The regions grow with the image, but remain small compared with the thumbnail up to about
    20,000 pixels per side.) In training Gumbel noise is added to the scores, so that K cells are
    sampled without replacement instead of the K best (Kool et al. 2019, "Stochastic beams and where
    to find them").

    Args:
        keypoints: number K of keypoints.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        shrink: side in pixels of the squares whose means are the pixels of the thumbnail.
        widths: output channels of the convolutions.
        regions: number of regions that are scored in larger images; 0 to score the thumbnail at
            `shrink` whatever its size.
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
        """Return keypoints, their scores, the thumbnail, and the scores of all of its cells.

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
        corners_px = (cells * factor - MARGIN) * (CELL * self.shrink)  # (B, R, 2)
        side_px = (factor + 2 * MARGIN) * CELL * self.shrink
        regions = view.crops(corners_px, side_px, self.shrink)  # (B, R, C, r, r)
        fine_scores = self.fine(regions.flatten(0, 1)).unflatten(0, regions.shape[:2])
        # Adding zeros changes no score, but passes the gradient on to the coarse scores.
        fine_scores = fine_scores + (best.values - best.values.detach())[..., None, None]
        xy, score = self._choose(fine_scores, corners_px, MARGIN, view.size)
        return Located(xy, score=score, thumbnail=thumbnail, score_map=scores)

    def thumbnail(self, view: View) -> Tensor:
        """Return the thumbnail (B, C, h, w) of normalised images, coarser if they are large.

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
        """Return the integer by which `shrink` is multiplied for thumbnails of images of a size.

        Factors from the smallest that limits the thumbnail to `thumbnail_side` squared pixels, up
        to 1.5 times that, are candidates. Among them it is the one that leaves the fewest pixels
        outside complete cells at the right and bottom edges. It is 1 for small images.
        """
        if not self.regions:
            return 1
        # Pixels of the thumbnail at `shrink`, relative to the maximum.
        area_ratio = size[0] * size[1] / (self.shrink * self.thumbnail_side) ** 2
        smallest = max(1, -int(-(area_ratio**0.5) // 1))  # rounded up
        candidates = range(smallest, smallest + smallest // 2 + 1)
        return min(candidates, key=lambda factor: self._uncovered_px(size, factor))

    def _uncovered_px(self, size: Size, factor: int) -> int:
        """Return the width in pixels of the wider edge that no complete cell covers."""
        cell_px = factor * CELL * self.shrink
        return max(side % cell_px for side in size)

    def _choose(
        self, scores: Tensor, corners_px: Tensor | None, margin: int, size: Size
    ) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, K, 2) and their scores (B, K) from the maps of R regions.

        Args:
            scores: maps (B, R, h, w) of the scores of cells.
            corners_px: first pixel (x, y) of each region (B, R, 2); None for one map of the whole
                image.
            margin: number of cells at each edge of a map that are not chosen.
            size: height and width of the images in pixels.
        """
        noisy = add_gumbel_noise(scores, self.explore if self.training else 0)
        indices = best_cells(noisy, self.keypoints, margin)
        cells = refine(scores.detach(), indices)
        xy_px = (cells + 0.5) * (CELL * self.shrink) - 0.5
        if corners_px is not None:
            region = indices // (scores.shape[-2] * scores.shape[-1])
            xy_px = xy_px + corners_px.gather(1, region[..., None].expand(-1, -1, 2))
        return from_px(xy_px, size), scores.flatten(1).gather(1, indices)
