"""Crops from coarse to fine, chosen among candidates by scores on a thumbnail.

A crop is a square of the image, reduced to P x P samples. Its scale is the pixels of the image per
sample. A candidate is a crop that may be chosen; all candidates of a scale form a lattice.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones import Backbone
from foveal.detectors.candidates import Lattice, centres, lattice
from foveal.detectors.detector import Detector, Located
from foveal.detectors.score_map import add_gumbel_noise
from foveal.foundation.arguments import Length, Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import PatchSize, Width
from foveal.images import View
from foveal.images.geometry import Size

WHOLE = 0  # in `scales`: one crop of the whole image

Scales = Annotated[Sequence[Annotated[int, Range(WHOLE, 1024)]], Length(1, 16)]
Counts = Annotated[Sequence[Annotated[int, Range(1, 4096)]], Length(1, 16)]


class Selection(NamedTuple):
    """The candidates chosen in B images."""

    indices: tuple[Tensor, ...]  # for each scale (B, count), among the candidates of that scale
    score: Tensor  # (B, K), scores of the chosen candidates, scale by scale


class CropDetector(Detector):
    """Scores candidate crops of several scales on a thumbnail, and chooses the best of each scale.

    The candidates of a scale cover the image from edge to edge, at equal distances. A backbone,
    usually the first stages of a pretrained one, turns the thumbnail into features. For each scale
    a small net turns these into two maps, and a candidate's score is the maximum of the first map
    plus the mean of the second over the cells that it covers. The thumbnail is not evidence: the
    head gets only the crops, of which the coarsest may show the whole image. In training Gumbel
    noise is added to the scores, so that candidates are sampled without replacement (Kool et al.
    2019, "Stochastic beams and where to find them").

    Args:
        backbone: turns the thumbnail into features, of which the deepest are scored; `Backbone.cut`
            returns the first stages of a backbone.
        patch_size: side P of a crop in samples.
        scales: pixels of the image per sample, from coarse to fine; 0 for one crop of the whole
            image.
        counts: number of crops of each scale.
        shrink: side in pixels of the squares whose means are the pixels of the thumbnail.
        width: channels of the net that scores the features.
        explore: in training, factor of the Gumbel noise on the scores.
        learned: whether the scores are learned. If not, they are the mean square of the features,
            each standardised over the training images, so that crops are at peaks of the features.

    Raises:
        UserError: there is not one count per scale, a count for the whole image is above 1, or the
            backbone has no fixed stride.
    """

    blocks = True

    def __init__(
        self,
        backbone: Backbone,
        patch_size: PatchSize = 96,
        scales: Scales = (WHOLE, 1),
        counts: Counts = (1, 4),
        shrink: Annotated[int, Range(1, 1024)] = 2,
        width: Width = 32,
        explore: Annotated[float, Range(0, 1000)] = 1.0,
        learned: bool = True,
    ):
        super().__init__()
        if len(scales) != len(counts):
            raise UserError(
                f"Expected one count per scale, but got {len(counts)} count(s) for "
                f"{len(scales)} scale(s)."
            )
        for scale, count in zip(scales, counts, strict=True):
            if scale == WHOLE and count != 1:
                raise UserError(
                    f"Scale 0 is the whole image, so its count must be 1, but got {count}."
                )
        self.backbone, self.in_channels = backbone, backbone.in_channels
        self.patch_size, self.keypoints = patch_size, sum(counts)
        self.scales, self.counts = list(scales), list(counts)
        self.shrink, self.width, self.explore = shrink, width, explore
        self.learned = learned
        stride = backbone.strides[-1]
        if stride is None:
            raise UserError(
                "The detector's backbone must have features with a fixed stride, but got "
                f"{type(backbone).__name__}."
            )
        self.cell_px = stride * shrink
        channels, map_count = backbone.widths[-1], 2 * len(scales)
        self.scorer = (
            _scorer(channels, width, map_count) if learned else _Energy(channels, map_count)
        )

    def forward(self, view: View) -> Located:
        """Return the locations, scales and scores of the crops.

        Raises:
            UserError: the images are too small for a thumbnail.
        """
        return self.located(self.choose(self.features(view), view.size), view.size)

    def features(self, view: View) -> Tensor:
        """Return the backbone's features (B, C, h, w) of the thumbnail.

        Raises:
            UserError: the images are too small for a thumbnail.
        """
        if min(view.size) < self.shrink:
            raise UserError(
                f"Expected images of at least {self.shrink}x{self.shrink} pixels, but got "
                f"{view.size[0]}x{view.size[1]}. Resize them or choose a smaller shrink."
            )
        depth = len(self.backbone.widths)
        return self.backbone.begin(view.thumbnail(self.shrink), depth)[-1]

    def choose(self, features: Tensor, size: Size) -> Selection:
        """Return the best candidates of each scale, or in training a sample of candidates.

        Args:
            features: features (B, C, h, w) of the thumbnails, as `features` returns them.
            size: height and width of the images in pixels.
        """
        indices, best_scores = [], []
        for scores, count in zip(self.scores(features, size), self.counts, strict=True):
            noisy = add_gumbel_noise(scores, self.explore if self.training else 0)
            best = noisy.topk(count, dim=1).indices
            indices.append(best)
            best_scores.append(scores.gather(1, best))
        return Selection(tuple(indices), torch.cat(best_scores, dim=1))

    def global_indices(self, chosen: Selection, size: Size) -> Tensor:
        """Return the indices (B, K) of chosen candidates among those of all scales in a row."""
        offset, indices = 0, []
        for squares, index in zip(self.candidates(size), chosen.indices, strict=True):
            indices.append(index + offset)
            offset += squares.total
        return torch.cat(indices, dim=1)

    def located(self, chosen: Selection, size: Size) -> Located:
        """Return the locations, scales and scores of chosen candidates in images of a size."""
        score = chosen.score
        locations = [
            centres(squares, size).to(score)[index]
            for squares, index in zip(self.candidates(size), chosen.indices, strict=True)
        ]
        xy = torch.cat(locations, dim=1)
        scales = score.new_tensor(self.scales_of(size)) + torch.zeros_like(xy[..., 0])
        return Located(xy, scales, score)

    def scores(self, features: Tensor, size: Size) -> list[Tensor]:
        """Return the scores (B, N) of the N candidates of each scale; a whole image has score 0."""
        maps = self.scorer(features)  # (B, 2 L, h, w) for L scales
        scores = []
        for level, squares in enumerate(self.candidates(size)):
            if self.scales[level] == WHOLE:
                scores.append(torch.zeros_like(maps[:, 0, 0, :1]))  # (B, 1), the only candidate
                continue
            # The first cell of each row and column of candidates, and the cells that one spans.
            rows, height = self._cells(squares.rows_px, squares.side_px, maps.shape[-2])
            columns, width = self._cells(squares.columns_px, squares.side_px, maps.shape[-1])
            window = (height, width)
            max_map, mean_map = maps[:, 2 * level : 2 * level + 2].split(1, dim=1)
            pooled = F.max_pool2d(max_map, window, 1) + F.avg_pool2d(mean_map, window, 1)
            scores.append(pooled[:, 0][:, rows][:, :, columns].flatten(1))
        return scores

    def candidates(self, size: Size) -> list[Lattice]:
        """Return the candidates of each scale, from coarse to fine, in images of a size."""
        return [
            lattice(size, self.patch_size * scale, count)
            for scale, count in zip(self._scales(size), self.counts, strict=True)
        ]

    def scales_of(self, size: Size) -> list[int]:
        """Return the pixels per sample of each of the K crops in images of a size."""
        pairs = zip(self._scales(size), self.counts, strict=True)
        return [scale for scale, count in pairs for _ in range(count)]

    def _scales(self, size: Size) -> list[int]:
        """Return the pixels per sample of each scale in images of a size."""
        scale_of_whole = -(-max(size) // self.patch_size)  # rounded up
        return [scale_of_whole if scale == WHOLE else scale for scale in self.scales]

    def _cells(self, starts_px: Sequence[int], side_px: int, total: int) -> tuple[list[int], int]:
        """Return the first cell of each row or column of candidates, and how many cells each spans.

        Args:
            starts_px: first pixel of each row or column.
            side_px: side of a candidate in pixels.
            total: number of cells along this side of the maps.
        """
        span = min(max(1, round(side_px / self.cell_px)), total)
        first_cells = [round(start_px / self.cell_px) for start_px in starts_px]
        return [min(max(0, cell), total - span) for cell in first_cells], span


def _scorer(channels: int, width: int, map_count: int) -> nn.Module:
    """Return the net from features (B, channels, h, w) to score maps (B, map_count, h, w)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, map_count, 1),
    )


class _Energy(nn.Module):
    """The mean square of standardised features, repeated as several maps.

    It replaces the learned scoring net. In training it only estimates the mean and variance of the
    features, by which they are standardised.
    """

    def __init__(self, channels: int, map_count: int):
        super().__init__()
        self.norm, self.map_count = nn.BatchNorm2d(channels, affine=False), map_count

    def forward(self, features: Tensor) -> Tensor:
        """Return `map_count` equal maps (B, M, h, w) for features (B, C, h, w)."""
        energy = self.norm(features).square().mean(dim=1, keepdim=True)
        return energy.expand(-1, self.map_count, -1, -1)
