"""Self-attention in a window around each location, pairwise or patchwise.

This is the self-attention of Zhao et al. 2020, "Exploring self-attention for image recognition",
whose Greek letters name the learned maps. A window is the square of locations around a location; an
offset (dy, dx) is the step from the location to another one in its window.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

GROUP_SIZE = 8  # number of channels that share one weight, as in the paper


def windows(features: Tensor, side: int) -> list[Tensor]:
    """Return features shifted by each offset of a window, and mirrored at the border.

    The results are views of one padded tensor, so they take little more memory than the features,
    however large the window is.

    Args:
        features: (B, C, H, W).
        side: side of the window in locations, odd.

    Returns:
        side * side tensors of the shape of `features`. In that of offset (dy, dx), the value at
        (y, x) is the feature at (y + dy, x + dx). Offsets are ordered row by row, starting with
        (-(side // 2), -(side // 2)).
    """
    size = (features.shape[-2], features.shape[-1])
    return _views(add_border(features, side // 2), side, size)


def _views(padded: Tensor, side: int, size: tuple[int, int]) -> list[Tensor]:
    """Return the view (..., H, W) of padded features for each offset of a window, row by row."""
    height, width = size
    return [padded[..., y : y + height, x : x + width] for y in range(side) for x in range(side)]


def add_border(features: Tensor, reach: int) -> Tensor:
    """Return features (B, C, H, W) with a mirrored border of `reach` locations.

    If there are too few locations to mirror, the outermost ones are repeated instead.
    """
    mode = "reflect" if reach < min(features.shape[-2:]) else "replicate"
    return F.pad(features, (reach,) * 4, mode=mode)


def aggregate(values: Tensor, weights: Tensor, side: int) -> Tensor:
    """Return the weighted sum over each location's window (Zhao et al. 2020, equations 2 and 4).

    Args:
        values: (B, C, H, W).
        weights: (B, side * side, C / GROUP_SIZE, H, W), offsets in the order of `windows`.
        side: side of the window in locations, odd.

    Returns:
        (B, C, H, W).
    """
    # This is three times as fast as in the memory format channels_last.
    weights = weights.contiguous()
    padded = add_border(values.contiguous(), side // 2)
    padded = padded.unflatten(1, (weights.shape[2], -1))  # (B, groups, GROUP_SIZE, H + border, ...)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return WindowSum.apply(padded, weights, side).flatten(1, 2)
    return window_sum(padded, weights, side).flatten(1, 2)


def window_sum(padded: Tensor, weights: Tensor, side: int) -> Tensor:
    """Return weighted sums (B, groups, GROUP_SIZE, H, W) over windows of values with a border.

    Args:
        padded: (B, groups, GROUP_SIZE, H + side - 1, W + side - 1), values with their border.
        weights: (B, side * side, groups, H, W), offsets in the order of `windows`.
        side: side of the window in locations, odd.
    """
    size = (weights.shape[-2], weights.shape[-1])
    total = padded.new_zeros(*padded.shape[:3], *size)
    for shifted, weight in zip(_views(padded, side, size), weights.unbind(1), strict=True):
        total = torch.addcmul(total, weight[:, :, None], shifted)
    return total


class WindowSum(torch.autograd.Function):
    """`window_sum` with a backward pass that accumulates gradients in place.

    Autograd's own backward pass would pad the gradient of each offset with zeros, and take two to
    four times as long.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weights: Tensor, side: int) -> Tensor:
        """Return the sums (B, groups, GROUP_SIZE, H, W)."""
        ctx.save_for_backward(padded, weights)
        ctx.side = side
        return window_sum(padded, weights, side)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of the padded values and of the weights."""
        padded, weights = ctx.saved_tensors
        gradient = gradient.contiguous()
        padded_grad, weights_grad = torch.zeros_like(padded), torch.empty_like(weights)
        size = (weights.shape[-2], weights.shape[-1])
        sources = _views(padded, ctx.side, size)
        targets = _views(padded_grad, ctx.side, size)
        for offset, (source, target) in enumerate(zip(sources, targets, strict=True)):
            target.addcmul_(gradient, weights[:, offset, :, None])
            weights_grad[:, offset] = (gradient * source).sum(dim=2)
        return padded_grad, weights_grad, None


class LocalAttention(nn.Module, ABC):
    """A weighted sum of values over a window around each location.

    The subclasses compute the weights, from maps phi of the location's features and psi of those of
    its window. They take these arguments:

    - `in_channels`: channels of the features.
    - `width`: channels of the sums, a multiple of 8.
    - `relation`: channels of phi and psi.
    - `side`: side of the window in locations, odd.

    Attributes:
        beta: turns features into the values that are summed.
    """

    beta: nn.Module

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    @abstractmethod
    def weigh(self, features: Tensor) -> Tensor:
        """Return weights (B, side * side, width / 8, H, W) for features (B, C, H, W)."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums (B, width, H, W) and the weights for features (B, C, H, W)."""
        weights = self.weigh(features)
        return aggregate(self.beta(features), weights, self.side), weights


class PairwiseAttention(LocalAttention):
    """Weights each location of a window by its relation to the central one (pairwise).

    The weights are those of equation 2 of Zhao et al. 2020 with the subtraction relation: the
    softmax over the window of gamma(phi(x_i) - psi(x_j), p_i - p_j), where x are the features and
    p the positions of the central location i and of location j. There is one weight per 8 channels.
    `LocalAttention` describes the arguments.
    """

    def __init__(self, in_channels: int, width: int, relation: int, side: int):
        super().__init__(side)
        self.phi = nn.Conv2d(in_channels, relation, 1)
        self.psi = nn.Conv2d(in_channels, relation, 1)
        self.beta = nn.Conv2d(in_channels, width, 1)
        self.place = nn.Conv2d(2, 2, 1)
        self.gamma = nn.Sequential(
            nn.BatchNorm2d(relation + 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation + 2, relation, 1, bias=False),
            nn.BatchNorm2d(relation),
            nn.ReLU(inplace=True),
            nn.Conv2d(relation, width // GROUP_SIZE, 1),
        )

    def weigh(self, features: Tensor) -> Tensor:
        """Return weights (B, side * side, width / 8, H, W) that sum to 1 over the window."""
        phi, psi = self.phi(features), self.psi(features)  # (B, relation, H, W)
        position = self.place(positions(features))  # (1, 2, H, W)
        neighbours = zip(windows(psi, self.side), windows(position, self.side), strict=True)
        batch_size = features.shape[0]  # not len(), which an export would turn into a constant
        pairs = [
            torch.cat([phi - psi_j, (position - position_j).expand(batch_size, -1, -1, -1)], dim=1)
            for psi_j, position_j in neighbours
        ]
        # All offsets are passed at once, so that they share the statistics of batch normalisation.
        scores = self.gamma(torch.cat(pairs)).unflatten(0, (self.side**2, batch_size))
        return scores.transpose(0, 1).softmax(dim=1)


class PatchwiseAttention(LocalAttention):
    """Weights the locations of a window by all of its features together (patchwise).

    The weights are those of equation 4 of Zhao et al. 2020 with the concatenation relation: gamma
    of phi(x_i), for the features x_i of the central location, and of psi(x_j) for all locations j
    of the window. The first layer of gamma is linear, so it is computed as the sum of a 1x1
    convolution of phi (`here`) and a convolution of psi over the window (`around`). The weights are
    not normalised; there is one weight per 8 channels. `LocalAttention` describes the arguments.
    """

    def __init__(self, in_channels: int, width: int, relation: int, side: int):
        super().__init__(side)
        self.groups = width // GROUP_SIZE
        self.phi = _pointwise(in_channels, relation)
        self.psi = _pointwise(in_channels, relation)
        self.beta = nn.Conv2d(in_channels, width, 1)
        self.here = nn.Conv2d(relation, self.groups, 1, bias=False)
        self.around = nn.Conv2d(relation, self.groups, side, bias=False)
        self.gamma = nn.Sequential(
            nn.BatchNorm2d(self.groups),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.groups, side**2 * self.groups, 1),
        )

    def weigh(self, features: Tensor) -> Tensor:
        """Return weights (B, side * side, width / 8, H, W), which may be negative."""
        padded = add_border(self.psi(features), self.side // 2)
        relation = self.here(self.phi(features)) + self.around(padded)
        return self.gamma(relation).unflatten(1, (self.side**2, self.groups))


def _pointwise(in_channels: int, width: int) -> nn.Module:
    """Return a 1x1 convolution with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def positions(features: Tensor) -> Tensor:
    """Return the (x, y) of each location of features (B, C, H, W), as (1, 2, H, W).

    The outermost locations of each side are at -1 and 1.
    """
    height, width = features.shape[-2:]
    y = torch.linspace(-1, 1, height, dtype=features.dtype, device=features.device)
    x = torch.linspace(-1, 1, width, dtype=features.dtype, device=features.device)
    x, y = torch.meshgrid(x, y, indexing="xy")
    return torch.stack([x, y])[None]


def received_attention(weights: Tensor, side: int) -> Tensor:
    """Return the attention that each location receives from the windows that contain it.

    Args:
        weights: (B, side * side, groups, H, W), offsets in the order of `windows`.
        side: side of the window in locations, odd.

    Returns:
        (B, H, W): for each location, the sum of its absolute weights in these windows, averaged
        over groups. Weights of the mirrored border are excluded.
    """
    magnitude = weights.abs().mean(dim=2)  # (B, side * side, H, W)
    height, width = magnitude.shape[-2:]
    reach = side // 2
    # `fold` adds the weight at (y, x) of offset (dy, dx) to the location (y + dy, x + dx).
    padded_size = (height + 2 * reach, width + 2 * reach)
    total = F.fold(magnitude.flatten(2), padded_size, kernel_size=side)
    return total[:, 0, reach : reach + height, reach : reach + width]
