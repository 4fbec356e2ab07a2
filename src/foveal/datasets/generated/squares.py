"""Index tensors of squares of pixels, one per image at its own position."""

import torch
from torch import Tensor


def square(corners_px: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return an index of a square of pixels in each of N images.

    Args:
        corners_px: (N, 2) integers (x, y), the upper left pixel of each square.
        side: side of the squares in pixels.

    Returns:
        Tensors that index images (N, H, W) and select pixels (N, side, side).
    """
    steps = torch.arange(side)
    columns, rows = (corners_px[..., None] + steps).unbind(1)  # (N, side) each
    return torch.arange(len(corners_px))[:, None, None], rows[:, :, None], columns[:, None, :]


def random_corners(count: int, side: int, image_side: int, generator: torch.Generator) -> Tensor:
    """Return the corners (count, 2) of squares at random positions inside square images."""
    return torch.randint(image_side - side + 1, (count, 2), generator=generator)
