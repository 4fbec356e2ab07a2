"""Candidate crops: the squares among which a detector chooses.

The candidates of one size form a lattice: rows and columns of overlapping squares over the image.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.images.geometry import Size, from_px

STEP = 0.75  # maximum distance of the centres of neighbouring squares, relative to their side


class Lattice(NamedTuple):
    """Squares of one size over an image, row by row.

    Attributes:
        rows_px: y of the first pixel of each row of squares; negative if a square is larger than
            the image.
        columns_px: x of the first pixel of each column of squares; negative in the same case.
        side_px: side of the squares in pixels.
    """

    rows_px: tuple[int, ...]
    columns_px: tuple[int, ...]
    side_px: int

    @property
    def total(self) -> int:
        """Number of squares."""
        return len(self.rows_px) * len(self.columns_px)

    @property
    def corners_px(self) -> Tensor:
        """First pixel (x, y) of each square, as integers (N, 2), row by row."""
        return torch.tensor([(x, y) for y in self.rows_px for x in self.columns_px])


def lattice(size: Size, side_px: int, min_count: int = 1) -> Lattice:
    """Return squares that cover an image from edge to edge, at equal distances.

    Neighbours overlap by at least a quarter of their side. If a square is longer than the image,
    the image is in the middle of the square.

    Args:
        size: height and width of the image in pixels.
        side_px: side of the squares in pixels.
        min_count: minimum number of squares. If fewer suffice to cover the image, rows or columns
            are added, and the squares overlap more.
    """
    height, width = size
    row_count, column_count = _count(height, side_px), _count(width, side_px)
    while row_count * column_count < min_count:
        if height / row_count >= width / column_count:
            row_count += 1
        else:
            column_count += 1
    rows_px = _starts(height, side_px, row_count)
    columns_px = _starts(width, side_px, column_count)
    return Lattice(rows_px, columns_px, side_px)


def centres(squares: Lattice, size: Size) -> Tensor:
    """Return the centres of squares (N, 2) in grid units."""
    return from_px(squares.corners_px + (squares.side_px - 1) / 2, size)


def _count(length: int, side: int) -> int:
    """Return how many squares cover a length if neighbours are at most `STEP` of a side apart."""
    steps = -int((side - length) // (STEP * side))  # rounded up
    return max(1, 1 + steps)


def _starts(length: int, side: int, count: int) -> tuple[int, ...]:
    """Return the first pixels of `count` squares at equal distances over a length."""
    last = length - side
    if count == 1 or last < 0:
        return (last // 2,) * count
    return tuple(round(last * index / (count - 1)) for index in range(count))
