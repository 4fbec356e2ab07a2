"""Squares of pixels, one in each image at a place of its own, to cut out or to lay down."""

import torch
from torch import Tensor


def square(corners_px: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what indexes a square (N, side, side) of each of N images (N, H, W).

    Args:
        corners_px: (N, 2) whole numbers (x, y), the upper left pixel of each square.
        side: of the squares in pixels.
    """
    steps = torch.arange(side)
    columns, rows = (corners_px[..., None] + steps).unbind(1)  # (N, side) each
    return torch.arange(len(corners_px))[:, None, None], rows[:, :, None], columns[:, None, :]


def random_corners(count: int, side: int, inside: int, generator: torch.Generator) -> Tensor:
    """Return corners (count, 2) of squares of `side` pixels, anywhere in images of `inside`."""
    return torch.randint(inside - side + 1, (count, 2), generator=generator)
