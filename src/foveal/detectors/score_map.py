"""Scores of the cells of a thumbnail, and the selection of the best cells.

A cell is a square of 2 x 2 thumbnail pixels; a score says how useful a patch there may be.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single

CELL = 2  # side of a cell in thumbnail pixels
MIN_VARIANCE = 1e-4  # added to the variance, so that its logarithm is finite


class ScoreMap(nn.Module):
    """A small convolutional net that scores each cell of a thumbnail.

    The score is the net's output plus a learned factor times the local variation of the thumbnail.
    Because of this second term even an untrained net prefers textured cells to uniform ones.

    Args:
        in_channels: channels C of the thumbnail.
        window: side of the window around a cell in which variation is measured, in thumbnail
            pixels; usually that of a patch.
        widths: output channels of the convolutions; the second one halves the resolution.
    """

    def __init__(self, in_channels: int, window: int, widths: Sequence[int] = (16, 24, 24)):
        super().__init__()
        self.window = max(CELL, window + window % 2)
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(widths):
            side, stride = (4, CELL) if index == 1 else (3, 1)
            layers += [
                nn.Conv2d(channels, width, side, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        # A bias would not change which cells are best. The initial weights are small, so that at
        # first the variation determines the scores.
        self.score = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        nn.init.normal_(self.score.weight, std=0.01)
        self.variation = nn.Parameter(torch.tensor(3.0))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) for a normalised thumbnail (B, C, h, w)."""
        learned = self.score(self.features(thumbnail))[:, 0]
        return learned + self.variation * self._variation(thumbnail)

    def _variation(self, thumbnail: Tensor) -> Tensor:
        """Return the variation at each cell (B, h // 2, w // 2) of a thumbnail (B, C, h, w).

        It is the logarithm of the variance of each channel in a window, averaged over channels.
        """
        moments = torch.cat([thumbnail, thumbnail.square()], dim=1)
        # Two poolings in turn, one with an odd and one with an even side, each about half of the
        # window. Together they span the window and weight its centre most.
        half = self.window // 2
        odd, even = half + 1 - half % 2, half + half % 2
        moments = F.avg_pool2d(moments, odd, stride=1, padding=odd // 2)
        moments = F.avg_pool2d(moments, even, stride=CELL, padding=(even - CELL) // 2)
        mean, mean_square = moments.chunk(2, dim=1)
        variance = (mean_square - mean.square()).clamp_min(0).mean(dim=1)
        return variance.add(MIN_VARIANCE).log()


def add_gumbel_noise(scores: Tensor, explore: float) -> Tensor:
    """Return scores plus Gumbel noise, without a gradient.

    With a factor of 1, the K highest noisy scores are a sample of K elements without replacement,
    whose probabilities are the softmax of the scores (Kool et al. 2019, "Stochastic beams and where
    to find them").

    Args:
        scores: scores of any shape.
        explore: factor of the noise; 0 for none.
    """
    scores = scores.detach()
    if not explore:
        return scores
    # The negative logarithm of an exponential variable has a Gumbel distribution.
    return scores - explore * torch.empty_like(scores).exponential_().log()


def best_cells(scores: Tensor, count: int, margin: int = 0) -> Tensor:
    """Return the indices (B, count) of the best cells, best first, in the flattened maps.

    Cells that score at least as high as their eight neighbours (local maxima) come first; if there
    are too few, other cells follow.

    Args:
        scores: (B, R, h, w), R maps per image. An index counts cells over all R maps.
        count: number of cells to return per image.
        margin: number of rows and columns at each edge of a map that are not chosen.

    Raises:
        UserError: there are fewer cells than `count`.
    """
    height, width = scores.shape[-2:]
    neighbourhood_max = F.max_pool2d(scores, 3, stride=1, padding=1)
    # The penalty exceeds the range of the scores, so that all other cells rank below all maxima.
    low, high = torch.aminmax(scores.detach().flatten(1), dim=1)
    penalty = (2 * (high - low) + 1)[:, None, None, None]
    ranked = torch.where(scores >= neighbourhood_max, scores, scores - penalty)
    inner = ranked[:, :, margin : height - margin, margin : width - margin]
    rows, columns = inner.shape[-2:]
    cells = rows * columns  # in one map
    if cells * scores.shape[1] < count:
        raise UserError(
            f"Expected an image of at least {count} cells, one per patch, but got "
            f"{cells * scores.shape[1]}. Choose fewer keypoints or a smaller shrink."
        )
    best = inner.flatten(1).topk(count, dim=1).indices
    map_index, cell = best // cells, best % cells
    row, column = cell // columns + margin, cell % columns + margin
    return (map_index * height + row) * width + column


def refine(scores: Tensor, indices: Tensor) -> Tensor:
    """Return the locations of cells to a fraction of a cell, as (x, y) in cells of their map.

    Each is the mean location of the 3 x 3 cells around an index, weighted by the softmax of their
    scores.

    Args:
        scores: (B, R, h, w), R maps per image.
        indices: (B, K) indices of cells, as `best_cells` returns them.

    Returns:
        (B, K, 2).
    """
    height, width = scores.shape[-2:]
    scores = at_least_single(scores)
    padded = F.pad(scores, (1, 1, 1, 1), value=float("-inf"))
    map_index, cell = indices // (height * width), indices % (height * width)
    row, column = cell // width, cell % width
    step = torch.arange(3, device=indices.device)
    y = (map_index * (height + 2) + row)[..., None, None] + step[:, None]  # (B, K, 3, 1)
    x = column[..., None, None] + step  # (B, K, 1, 3), of the padded map
    windows = padded.flatten(1).gather(1, (y * (width + 2) + x).flatten(1))
    weights = windows.unflatten(1, (-1, 9)).softmax(dim=-1).unflatten(-1, (3, 3))  # (B, K, 3, 3)
    offsets = step.to(scores.dtype) - 1
    dx = (weights.sum(dim=-2) * offsets).sum(dim=-1)
    dy = (weights.sum(dim=-1) * offsets).sum(dim=-1)
    return torch.stack([column + dx, row + dy], dim=-1)
