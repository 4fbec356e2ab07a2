"""Candidate crops: lattices of squares of one size over an image."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.images.geometry import Size, from_px

STEP = 0.75  # maximum step from one candidate to the next, as a fraction of a crop's side


class Lattice(NamedTuple):
    """Squares of one size over an image, row by row.

    Attributes:
        rows_px: first pixel of each row of squares; below 0 if the image is smaller.
        columns_px: first pixel of each column of squares.
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
        """(N, 2) integers (x, y), the first pixel of each square."""
        return torch.tensor([(x, y) for y in self.rows_px for x in self.columns_px])


def lattice(size: Size, side_px: int, min_count: int = 1) -> Lattice:
    """Return squares that cover an image uniformly, from edge to edge.

    Neighbours overlap by at least a quarter of their side. An image smaller than a square is
    centred in it.

    Args:
        size: height and width of the image in pixels.
        side_px: side of the squares in pixels.
        min_count: minimum number of squares; if fewer would cover the image, they overlap more.
    """
    rows, columns = (_count(length, side_px) for length in size)
    while rows * columns < min_count:
        if size[0] / rows >= size[1] / columns:
            rows += 1
        else:
            columns += 1
    return Lattice(_starts(size[0], side_px, rows), _starts(size[1], side_px, columns), side_px)


def centres(squares: Lattice, size: Size) -> Tensor:
    """Return the centres of squares (N, 2) in grid units."""
    return from_px(squares.corners_px + (squares.side_px - 1) / 2, size)


def _count(length: int, side: int) -> int:
    return max(1, 1 - int((side - length) // (STEP * side)))  # rounded up


def _starts(length: int, side: int, count: int) -> tuple[int, ...]:
    last = length - side
    if count == 1 or last < 0:
        return (last // 2,) * count
    return tuple(round(last * index / (count - 1)) for index in range(count))
