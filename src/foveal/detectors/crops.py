"""Crops from coarse to fine, chosen by scores on a thumbnail."""

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

WHOLE = 0  # the scale of a crop of the whole image

Scales = Annotated[Sequence[Annotated[int, Range(WHOLE, 1024)]], Length(1, 16)]
Counts = Annotated[Sequence[Annotated[int, Range(1, 4096)]], Length(1, 16)]


class Selection(NamedTuple):
    """Selected candidates of B images."""

    indices: tuple[Tensor, ...]  # (B, count) among the candidates of each scale
    score: Tensor  # (B, K)


class CropDetector(Detector):
    """Scores candidate crops of several scales on a thumbnail, and takes the best of each.

    The candidates of a scale cover the image uniformly. A small net on early, cheap features of a
    pretrained backbone scores each cell of the thumbnail; a candidate's score is the maximum of one
    map over its cells, plus the mean of another. The thumbnail is not evidence: the head gets only
    the crops, of which the coarsest may show the whole image. In training, Gumbel noise on the
    scores samples candidates without replacement (Kool et al. 2019, "Stochastic beams and where to
    find them").

    Args:
        backbone: thumbnail -> features, of which the deepest are scored; see `Backbone.cut`.
        patch_size: side P of a crop in samples.
        scales: pixels of the image per sample, from coarse to fine; 0 for one crop of the whole
            image.
        counts: number of crops of each scale.
        shrink: each pixel of the thumbnail is the mean of a square of this side in pixels.
        width: channels of the scoring net.
        explore: in training, factor of the Gumbel noise on the scores.
        learned: whether scores are learned; otherwise they are the energy of the features,
            standardised over the training images, which puts crops at peaks of the features.

    Raises:
        UserError: not one count per scale, or a count above 1 for the whole image.
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
        channels, maps = backbone.widths[-1], 2 * len(scales)
        self.scorer = _scorer(channels, width, maps) if learned else _Energy(channels, maps)

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
        """Return the best candidates of images of a size, from their thumbnails' features."""
        indices, best_scores = [], []
        for scores, count in zip(self.scores(features, size), self.counts, strict=True):
            noisy = add_gumbel_noise(scores, self.explore if self.training else 0)
            best = noisy.topk(count, dim=1).indices
            indices.append(best)
            best_scores.append(scores.gather(1, best))
        return Selection(tuple(indices), torch.cat(best_scores, dim=1))

    def global_indices(self, chosen: Selection, size: Size) -> Tensor:
        """Return the indices (B, K) of chosen candidates among the candidates of all scales."""
        offset, indices = 0, []
        for squares, index in zip(self.candidates(size), chosen.indices, strict=True):
            indices.append(index + offset)
            offset += squares.total
        return torch.cat(indices, dim=1)

    def located(self, chosen: Selection, size: Size) -> Located:
        """Return the locations of chosen candidates in images of a size, and their scales."""
        score = chosen.score
        locations = [
            centres(squares, size).to(score)[index]
            for squares, index in zip(self.candidates(size), chosen.indices, strict=True)
        ]
        xy = torch.cat(locations, dim=1)
        scales = score.new_tensor(self.scales_of(size)) + torch.zeros_like(xy[..., 0])
        return Located(xy, scales, score)

    def scores(self, features: Tensor, size: Size) -> list[Tensor]:
        """Return the scores (B, N) of the candidates of each scale."""
        maps = self.scorer(features)  # (B, 2 L, h, w)
        scores = []
        for level, squares in enumerate(self.candidates(size)):
            if self.scales[level] == WHOLE:
                scores.append(torch.zeros_like(maps[:, 0, 0, :1]))
                continue
            rows, height = self._cells(squares.rows_px, squares.side_px, maps.shape[-2])
            columns, width = self._cells(squares.columns_px, squares.side_px, maps.shape[-1])
            window = (height, width)
            max_map, mean_map = maps[:, 2 * level : 2 * level + 2].split(1, dim=1)
            pooled = F.max_pool2d(max_map, window, 1) + F.avg_pool2d(mean_map, window, 1)
            scores.append(pooled[:, 0][:, rows][:, :, columns].flatten(1))
        return scores

    def candidates(self, size: Size) -> list[Lattice]:
        """Return the candidates of each scale in images of a size."""
        return [
            lattice(size, self.patch_size * scale, count)
            for scale, count in zip(self._scales(size), self.counts, strict=True)
        ]

    def scales_of(self, size: Size) -> list[int]:
        """Return the pixels per sample of each of the K crops in images of a size."""
        pairs = zip(self._scales(size), self.counts, strict=True)
        return [scale for scale, count in pairs for _ in range(count)]

    def _scales(self, size: Size) -> list[int]:
        whole = -(-max(size) // self.patch_size)  # rounded up
        return [whole if scale == WHOLE else scale for scale in self.scales]

    def _cells(self, starts_px: Sequence[int], side_px: int, cells: int) -> tuple[list[int], int]:
        """Return the first cell of each row or column of candidates, and the cells each spans."""
        span = min(max(1, round(side_px / self.cell_px)), cells)
        firsts = [round(start / self.cell_px) for start in starts_px]
        return [min(max(0, first), cells - span) for first in firsts], span


def _scorer(channels: int, width: int, maps: int) -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.Conv2d(width, maps, 1),
    )


class _Energy(nn.Module):
    """The mean square of standardised features, repeated as several maps."""

    def __init__(self, channels: int, maps: int):
        super().__init__()
        self.norm, self.maps = nn.BatchNorm2d(channels, affine=False), maps

    def forward(self, features: Tensor) -> Tensor:
        """Return maps (B, M, h, w) for features (B, C, h, w)."""
        energy = self.norm(features).square().mean(dim=1, keepdim=True)
        return energy.expand(-1, self.maps, -1, -1)
