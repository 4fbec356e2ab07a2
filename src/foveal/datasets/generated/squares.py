"""Index tensors of squares of pixels, one per image at its own position."""

import torch
from torch import Tensor


def square(corners_px: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return index tensors of a square (N, side, side) in each of N images (N, H, W).

    Args:
        corners_px: (N, 2) integers (x, y), the upper left pixel of each square.
        side: side of the squares in pixels.
    """
    steps = torch.arange(side)
    columns, rows = (corners_px[..., None] + steps).unbind(1)  # (N, side) each
    return torch.arange(len(corners_px))[:, None, None], rows[:, :, None], columns[:, None, :]


def random_corners(count: int, side: int, image_side: int, generator: torch.Generator) -> Tensor:
    """Return random corners (count, 2) of squares with a given side in larger square images."""
    return torch.randint(image_side - side + 1, (count, 2), generator=generator)
