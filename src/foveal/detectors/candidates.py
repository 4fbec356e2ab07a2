"""Candidate crops: lattices of squares of one size over an image."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.geometry import Size

STEP = 0.75  # of a crop's side, the most from one candidate to the next


class Lattice(NamedTuple):
    """Squares of one side over an image, row by row.

    Attributes:
        rows_px: (R,) first pixel of each row of squares; below 0 where the image is smaller.
        columns_px: (Q,) of each column.
        side_px: of each square, in pixels.
    """

    rows_px: Tensor
    columns_px: Tensor
    side_px: int

    @property
    def corners_px(self) -> Tensor:
        """(R * Q, 2) integers (x, y), the first pixel of each square."""
        y, x = torch.meshgrid(self.rows_px, self.columns_px, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)


def lattice(size: Size, side_px: int, least: int = 1) -> Lattice:
    """Return squares that cover an image evenly, from edge to edge.

    Neighbours overlap by a quarter of their side or more. An image that is smaller than a square
    lies in its middle.

    Args:
        size: height and width of the image in pixels.
        side_px: of a square.
        least: squares there must be; where fewer would do, they lie closer.
    """
    rows, columns = (_count(length, side_px) for length in size)
    while rows * columns < least:
        if size[0] / rows >= size[1] / columns:
            rows += 1
        else:
            columns += 1
    return Lattice(_starts(size[0], side_px, rows), _starts(size[1], side_px, columns), side_px)


def _count(length: int, side: int) -> int:
    return max(1, 1 - int((side - length) // (STEP * side)))  # rounded up


def _starts(length: int, side: int, count: int) -> Tensor:
    free = length - side
    if count == 1 or free < 0:
        return torch.full((count,), free // 2)
    return torch.linspace(0, free, count, dtype=torch.float64).round().long()
