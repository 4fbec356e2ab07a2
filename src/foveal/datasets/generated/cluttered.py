"""Cluttered MNIST: images of a digit at a random position among pieces of other digits."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.datasets.generated.squares import random_corners, square
from foveal.datasets.images import ImageSet
from foveal.datasets.mnist import load_mnist
from foveal.datasets.splits import SPLITS

PIECE = 8  # side in pixels of a piece of another digit


def load_cluttered_mnist(split: str, data_dir: Path, side: int, pieces: int) -> ImageSet:
    """Return an image for each digit of a split of MNIST, in the same order.

    Each image contains the digit at a random position on black, and pieces of 8 x 8 pixels of other
    digits of the split at random positions. Where they overlap, the brighter pixel is used. The
    masks show the bounding boxes of the digits. A split always has the same images.

    They follow Mnih et al. 2014, "Recurrent models of visual attention" (arXiv:1406.6247), section
    4.1.

    Args:
        split: `train`, `val` or `test`.
        data_dir: folder that contains MNIST.
        side: side of the images in pixels, at least 28; in the paper 60 or 100.
        pieces: number of pieces per image; in the paper 4 or 8.
    """
    digits = load_mnist(split, data_dir)
    count = len(digits)
    tiles = digits.images[:, 0]  # (N, 28, 28)
    generator = torch.Generator().manual_seed(SPLITS.index(split))
    position = square(random_corners(count, tiles.shape[-1], side, generator), tiles.shape[-1])
    images = torch.zeros(count, side, side, dtype=torch.uint8)
    masks = torch.zeros_like(images)
    images[position] = tiles
    masks[position] = _boxes(tiles)
    for _ in range(pieces):
        clutter = _pieces(tiles, generator)
        position = square(random_corners(count, PIECE, side, generator), PIECE)
        images[position] = images[position].maximum(clutter)
    name = f"cluttered-mnist-{side}"
    return replace(digits, name=name, images=images[:, None], masks=masks[:, None])


def _boxes(tiles: Tensor) -> Tensor:
    """Return uint8 masks (N, H, W), 255 in the bounding box of the pixels that are not black."""
    is_lit = tiles > 0
    rows = _span(is_lit.any(dim=2))  # (N, H)
    columns = _span(is_lit.any(dim=1))  # (N, W)
    return (rows[:, :, None] & columns[:, None, :]).to(torch.uint8) * 255


def _span(mask: Tensor) -> Tensor:
    """Return booleans (N, L), True from the first to the last True position of each row."""
    after_first = mask.cumsum(dim=1) > 0
    before_last = mask.flip(1).cumsum(dim=1).flip(1) > 0
    return after_first & before_last


def _pieces(tiles: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random piece (N, PIECE, PIECE) of another digit for each digit."""
    count = len(tiles)
    offsets = torch.randint(1, max(count, 2), (count,), generator=generator)
    others = (torch.arange(count) + offsets) % count
    _, rows, columns = square(random_corners(count, PIECE, tiles.shape[-1], generator), PIECE)
    return tiles[others[:, None, None], rows, columns]
