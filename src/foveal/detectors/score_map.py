"""Scores of the cells of a thumbnail, and their best local maxima."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single

CELL = 2  # side of a cell in thumbnail pixels


class ScoreMap(nn.Module):
    """A small convolutional net that scores each 2 x 2 pixels of a thumbnail.

    The score is the net's output plus the local variation of the thumbnail, weighted by a learned
    factor: an untrained net then prefers textured cells to uniform ones.

    Args:
        in_channels: channels C of the thumbnail.
        window: side of a patch in thumbnail pixels, within which variation is measured.
        widths: output channels of the convolutions; the second one halves the resolution.
    """

    def __init__(self, in_channels: int, window: int, widths: Sequence[int] = (16, 24, 24)):
        super().__init__()
        self.window = max(CELL, window + window % 2)
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            side, stride = (4, 2) if index == 1 else (3, 1)
            layers += [
                nn.Conv2d(channels, width, side, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        # No bias: it would not change the choice. Initially small, so that the variation decides.
        self.score = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        nn.init.normal_(self.score.weight, std=0.01)
        self.variation = nn.Parameter(torch.tensor(3.0))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) for a normalised thumbnail (B, C, h, w)."""
        learned = self.score(self.features(thumbnail))[:, 0]
        return learned + self.variation * self._variation(thumbnail)

    def _variation(self, thumbnail: Tensor) -> Tensor:
        moments = torch.cat([thumbnail, thumbnail.square()], dim=1)
        half = self.window // 2
        even = half + half % 2
        moments = F.avg_pool2d(moments, half + 1 - half % 2, 1, half // 2)
        mean, mean_square = F.avg_pool2d(moments, even, CELL, (even - CELL) // 2).chunk(2, dim=1)
        return (mean_square - mean.square()).clamp_min(0).mean(dim=1).add(1e-4).log()


def add_gumbel_noise(scores: Tensor, explore: float) -> Tensor:
    """Return scores with Gumbel noise, without a gradient.

    The highest are then a sample without replacement, by the scores' softmax (Kool et al. 2019,
    "Stochastic beams and where to find them").

    Args:
        scores: scores of any shape.
        explore: factor of the noise; 0 for none.
    """
    noisy = scores.detach()
    return noisy - explore * torch.empty_like(noisy).exponential_().log() if explore else noisy


def best_cells(scores: Tensor, count: int, margin: int = 0) -> Tensor:
    """Return the indices (B, count) of the best cells of maps (B, R, h, w), row by row.

    Local maxima among eight neighbours come first; if there are too few, other cells follow.

    Args:
        scores: R maps per image.
        count: number of cells over all maps of an image.
        margin: rows and columns at every edge that are scored but not chosen.

    Raises:
        UserError: there are fewer cells than `count`.
    """
    height, width = scores.shape[-2:]
    neighbourhood = F.max_pool2d(scores, 3, 1, 1)
    # Other cells rank below all maxima, in the same order.
    low, high = torch.aminmax(scores.detach().flatten(1), dim=1)
    penalty = (2 * (high - low) + 1)[:, None, None, None]
    ranked = torch.where(scores >= neighbourhood, scores, scores - penalty)
    inner = ranked[:, :, margin : height - margin, margin : width - margin]
    columns, cells = inner.shape[-1], inner.shape[-2] * inner.shape[-1]
    if cells * scores.shape[1] < count:
        raise UserError(
            f"Expected an image of at least {count} cells, one per patch, but got "
            f"{cells * scores.shape[1]}. Choose fewer keypoints or a smaller shrink."
        )
    best = inner.flatten(1).topk(count, dim=1).indices
    index, cell = best // cells, best % cells  # map, and cell in it
    row, column = cell // columns + margin, cell % columns + margin
    return (index * height + row) * width + column


def refine(scores: Tensor, indices: Tensor) -> Tensor:
    """Return locations (x, y) in cells of their map (B, K, 2), refined within 3 x 3 cells.

    They are the mean of the nine cells around each index (B, K) under a softmax of their scores.

    Args:
        scores: (B, R, h, w).
        indices: as `best_cells` returns them.
    """
    height, width = scores.shape[-2:]
    scores = at_least_single(scores)
    padded = F.pad(scores, (1, 1, 1, 1), value=float("-inf"))
    index, cell = indices // (height * width), indices % (height * width)  # map, and cell in it
    row, column = cell // width, cell % width
    step = torch.arange(3, device=indices.device)
    y = (index * (height + 2) + row)[..., None, None] + step[:, None]  # (B, K, 3, 1)
    x = column[..., None, None] + step  # (B, K, 1, 3), of the padded map
    windows = padded.flatten(1).gather(1, (y * (width + 2) + x).flatten(1))
    weights = windows.unflatten(1, (-1, 9)).softmax(dim=-1).unflatten(-1, (3, 3))  # (B, K, 3, 3)
    offsets = step.to(scores.dtype) - 1
    dx = (weights.sum(dim=-2) * offsets).sum(dim=-1)
    dy = (weights.sum(dim=-1) * offsets).sum(dim=-1)
    return torch.stack([column + dx, row + dy], dim=-1)
