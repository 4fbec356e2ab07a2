"""Where to look, from a thumbnail: a score for every place, and the best places apart."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 2  # side in thumbnail pixels of what has one score


class ScoreMap(nn.Module):
    """A small convolutional net that scores each 2 x 2 pixels of a thumbnail.

    To the net's answer is added how much the thumbnail varies around the place, weighted by a
    learned number: an untrained net looks where there is something rather than nowhere.

    Args:
        in_channels: channels C of the thumbnail.
        window: side in thumbnail pixels of what a patch shows, for the variation.
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
        self.score = nn.Conv2d(channels, 1, 3, padding=1)
        nn.init.zeros_(self.score.weight)
        self.variation = nn.Parameter(torch.tensor(3.0))

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) for a normalised thumbnail (B, C, h, w)."""
        learned = self.score(self.features(thumbnail))[:, 0]
        return learned + self.variation * self._variation(thumbnail)

    def _variation(self, thumbnail: Tensor) -> Tensor:
        both = torch.cat([thumbnail, thumbnail.square()], dim=1)
        half = self.window // 2
        even = half + half % 2
        both = F.avg_pool2d(both, half + 1 - half % 2, 1, half // 2)
        mean, square = F.avg_pool2d(both, even, CELL, (even - CELL) // 2).chunk(2, dim=1)
        return (square - mean.square()).clamp_min(0).mean(dim=1).add(1e-4).log()


def best_places(scores: Tensor, count: int) -> Tensor:
    """Return the numbers (B, count) of the best cells of score maps (B, h, w), row by row.

    Cells that are greatest among their eight neighbours come first; where there are too few of
    them, the others follow.
    """
    greatest = F.max_pool2d(scores[:, None], 3, 1, 1)[:, 0]
    # Far below all that is a maximum, in the same order.
    spread = scores.amax(dim=(1, 2), keepdim=True) - scores.amin(dim=(1, 2), keepdim=True)
    ranked = torch.where(scores >= greatest, scores, scores - 2 * spread - 1)
    return ranked.flatten(1).topk(count, dim=1).indices


def refined(scores: Tensor, places: Tensor) -> Tensor:
    """Return where (x, y) in cells (B, K, 2) the best of 3 x 3 cells around places (B, K) lie.

    The mean place of the nine under a softmax of their scores (B, h, w).
    """
    height, width = scores.shape[-2:]
    padded = F.pad(scores, (1, 1, 1, 1), value=float("-inf"))
    rows, columns = places // width, places % width
    step = torch.arange(3, device=places.device)
    y = (rows[..., None] + step)[..., :, None]  # (B, K, 3, 1), of the padded map
    x = (columns[..., None] + step)[..., None, :]  # (B, K, 1, 3)
    around = padded.flatten(1).gather(1, (y * (width + 2) + x).flatten(1))
    weights = around.unflatten(1, (places.shape[1], 9)).softmax(dim=-1)  # (B, K, 9)
    weights = weights.unflatten(-1, (3, 3))
    moves = step.to(scores.dtype) - 1
    across = (weights.sum(dim=-2) * moves).sum(dim=-1)
    down = (weights.sum(dim=-1) * moves).sum(dim=-1)
    return torch.stack([columns + across, rows + down], dim=-1)
