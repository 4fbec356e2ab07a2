"""Megapixel MNIST: large images of five digits and many strokes.

A stroke is a distractor of the size of a digit: two crossed lines. Only the pixels that are not
black, which are called lit, are stored. A tile is the square of 28 x 28 pixels with one digit or
stroke.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.datasets.location import datasets_folder
from foveal.datasets.mnist import load_mnist
from foveal.datasets.splits import SPLITS
from foveal.foundation.errors import UserError, unknown_name

IMAGES = {"train": 5_000, "val": 500, "test": 1_000}  # images per split
DIGITS = 5  # per image
MAJORITY = 3  # digits of one class per image
STROKES = 50  # strokes per image, and number of different strokes
SIDE = 1500  # default side of an image in pixels
TILE = 28  # side of a digit or a stroke in pixels
# Minimum side of an image: in smaller ones it would take many attempts to arrange five digits.
MIN_SIDE_PX = 4 * TILE
# Positions that are drawn before the arrangement of an image's digits is started again.
TRIES = 1000
MIN_BRIGHTNESS = 204  # of the pixels of strokes; the maximum is 255
TASKS = ("majority", "max", "topmost", "multi-label")


@dataclass(frozen=True)
class SparseImages:
    """Large grey images, stored as their pixels that are not black.

    Thumbnails and crops are computed on demand, for any number of images at once.

    Attributes:
        size: height and width of each image in pixels.
        positions: (P,) positions of the lit pixels of all images, image after image: the index of
            the pixel in its image, counted row by row.
        values: (P,) uint8 values of these pixels.
        starts: (N + 1,) index in `positions` of the first pixel of each image, and the total P.
        boxes: (N, D, 4) boxes of the digits: x and y of the first pixel, and of one past the last.
        digits: (N, D) classes of the digits.
        labels: labels by task, for each of `TASKS`: classes (N,), but booleans (N, 10) for
            `multi-label`.
    """

    size: tuple[int, int]
    positions: Tensor
    values: Tensor
    starts: Tensor
    boxes: Tensor
    digits: Tensor
    labels: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.digits)

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the images at indices (B,), shrunk as `LargeImages.thumbnails` describes."""
        height, width = (side // shrink for side in self.size)
        image_indices, rows, columns, values = self._pixels(numbers)
        rows, columns = rows // shrink, columns // shrink
        inside = (rows < height) & (columns < width)
        mean_indices = ((image_indices * height + rows) * width + columns)[inside]
        means = torch.zeros(len(numbers) * height * width)
        means.index_add_(0, mean_indices, values[inside] / (255 * shrink**2))
        return means.reshape(len(numbers), 1, height, width)

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of the images at indices (B,), as `LargeImages.crops` describes."""
        image_indices, rows, columns, values = self._pixels(numbers)
        square_count = corners_px.shape[1]  # per image
        samples = side // shrink  # per side of a square
        left, top = corners_px[image_indices].int().unbind(-1)  # (P, K)
        # The row and the column of each pixel in each square of its image.
        down = rows.int()[:, None] - top
        across = columns.int()[:, None] - left
        inside = (down >= 0) & (down < side) & (across >= 0) & (across < side)
        pixel, square = inside.nonzero().unbind(-1)
        row, column = down[inside] // shrink, across[inside] // shrink
        mean_indices = (
            (image_indices[pixel] * square_count + square) * samples + row
        ) * samples + column
        means = torch.zeros(len(numbers) * square_count * samples * samples)
        means.index_add_(0, mean_indices, values[pixel] / (255 * shrink**2))
        return means.reshape(len(numbers), square_count, 1, samples, samples)

    def whole(self, number: int) -> Tensor:
        """Return one image (1, H, W) including its black pixels, uint8."""
        part = slice(int(self.starts[number]), int(self.starts[number + 1]))
        image = torch.zeros(self.size[0] * self.size[1], dtype=torch.uint8)
        image[self.positions[part].long()] = self.values[part]
        return image.reshape(1, *self.size)

    def _pixels(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the lit pixels of the images at indices (B,).

        Returns:
            For each of P pixels: its image as an index into `numbers`, row, column and value.
        """
        first, end = self.starts[numbers], self.starts[numbers + 1]
        counts = end - first
        image_indices = torch.arange(len(numbers)).repeat_interleave(counts)
        preceding = counts.cumsum(0) - counts
        indices = torch.arange(int(counts.sum())) + (first - preceding)[image_indices]
        positions = self.positions[indices].long()
        rows, columns = positions // self.size[1], positions % self.size[1]
        return image_indices, rows, columns, self.values[indices]


def megapixel_mnist(
    split: str,
    side: int = SIDE,
    images: int | None = None,
    strokes: int = STROKES,
    data_dir: str | Path | None = None,
) -> SparseImages:
    """Return large images with five digits, three of them of one class, and many strokes.

    They follow Katharopoulos & Fleuret 2019, "Processing megapixel images with deep
    attention-sampling models" (arXiv:1905.03711), section 4.1. The four tasks are those of Bergner
    et al. 2023, "Iterative patch selection" (arXiv:2210.13007): the class of the majority, the
    maximum digit, the topmost digit, and the set of digits. Digits never overlap each other; a
    digit hides the strokes below its tile.

    Args:
        split: `train`, `val` or `test`; digits come from the same split of MNIST.
        side: side of the images in pixels.
        images: number of images, the first of the split; `IMAGES` if not given.
        strokes: number of strokes per image.
        data_dir: folder that contains MNIST; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: unknown split, side too small for five digits, no images, or MNIST cannot be
            read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if side < MIN_SIDE_PX:
        raise UserError(f"Expected a side of at least {MIN_SIDE_PX} pixels, but got {side}.")
    count = IMAGES[split] if images is None else images
    if count < 1 or strokes < 0:
        raise UserError(
            f"Expected at least 1 image and at least 0 strokes, but got {count} images and "
            f"{strokes} strokes."
        )
    return _generate(load_mnist(split, datasets_folder(data_dir)), count, side, strokes)


def _generate(source: ImageSet, count: int, side: int, strokes: int) -> SparseImages:
    """Return `count` images made from `source`, a split of MNIST."""
    by_class = [(source.labels == label).nonzero()[:, 0] for label in range(10)]
    stroke_tiles = _stroke_tiles(torch.Generator().manual_seed(len(SPLITS)))
    layouts = [
        _draw_layout(
            torch.Generator().manual_seed(_seed(source.split, index)), by_class, side, strokes
        )
        for index in range(count)
    ]
    digit_indices, corners, stroke_indices, stroke_corners = (
        torch.stack(parts) for parts in zip(*layouts, strict=True)
    )
    pixels = [
        _lit_pixels(
            stroke_tiles[stroke_indices[n]],
            stroke_corners[n],
            source.images[digit_indices[n], 0],
            corners[n],
            side,
        )
        for n in range(count)
    ]
    digits = source.labels[digit_indices]
    return SparseImages(
        size=(side, side),
        positions=torch.cat([positions for positions, _ in pixels]),
        values=torch.cat([values for _, values in pixels]),
        starts=torch.tensor([0, *(len(positions) for positions, _ in pixels)]).cumsum(0),
        boxes=torch.cat([corners, corners + TILE], dim=-1),
        digits=digits,
        labels=_labels(digits, corners),
    )


def _seed(split: str, index: int) -> int:
    """Return the seed of the image at an index, which differs from those of all other images."""
    return SPLITS.index(split) + len(SPLITS) * index


def _draw_layout(
    generator: torch.Generator, by_class: Sequence[Tensor], side: int, strokes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw the digits and strokes of one image, and their positions.

    Args:
        generator: source of random numbers.
        by_class: indices of the MNIST images of each class.
        side: side of the image in pixels.
        strokes: number of strokes.

    Returns:
        Indices (D,) of MNIST images and corners (x, y) of their tiles (D, 2); then indices (S,) and
        corners (S, 2) of the strokes.
    """
    majority, *other_labels = torch.randint(
        10, (1 + DIGITS - MAJORITY,), generator=generator
    ).tolist()
    # Any class except that of the majority.
    other_labels = [(majority + 1 + draw % 9) % 10 for draw in other_labels]
    digit_indices = torch.cat(
        [_sample(by_class[label], 1, generator) for label in [majority] * MAJORITY + other_labels]
    )
    corners = _separate_corners(side, generator)
    stroke_indices = torch.randint(STROKES, (strokes,), generator=generator)
    stroke_corners = torch.randint(side - TILE + 1, (strokes, 2), generator=generator)
    return digit_indices, corners, stroke_indices, stroke_corners


def _sample(indices: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random elements of `indices`, with replacement."""
    return indices[torch.randint(len(indices), (count,), generator=generator)]


def _separate_corners(side: int, generator: torch.Generator) -> Tensor:
    """Return random corners (DIGITS, 2) of tiles that do not overlap."""
    corners: list[Tensor] = []
    tries = 0
    while len(corners) < DIGITS:
        corner = torch.randint(side - TILE + 1, (2,), generator=generator)
        if all(((corner - other).abs() >= TILE).any() for other in corners):
            corners.append(corner)
        tries += 1
        if tries % TRIES == 0:  # in a small image the tiles may leave no room for the next one
            corners = []
    return torch.stack(corners)


def _stroke_tiles(generator: torch.Generator) -> Tensor:
    """Return uint8 tiles (STROKES, TILE, TILE) of two lines each, on black.

    Each line starts in a corner of the tile, at an angle of up to 72 degrees to one of its sides.
    """
    first = _lines(torch.rand(STROKES, generator=generator) * torch.pi / 2.5)
    second = first[torch.randperm(STROKES, generator=generator)]
    for axis in (1, 2):
        is_flipped = torch.rand(STROKES, generator=generator) < 1 / 3
        second = torch.where(is_flipped[:, None, None], second.flip(axis), second)
    shades = torch.randint(MIN_BRIGHTNESS, 256, first.shape, generator=generator)
    return torch.where(first | second, shades, 0).to(torch.uint8)


def _lines(angles: Tensor) -> Tensor:
    """Return booleans (STROKES, TILE, TILE), True along a line from the first pixel of each tile.

    Args:
        angles: (STROKES,) angles of the lines to the left side of the tile, in radians.
    """
    slopes = angles.tan()[:, None]  # columns per row
    reach = TILE - 0.51  # end of a line, which is rounded to the last pixel
    rows = torch.linspace(0, 1, 2 * TILE) * (reach / slopes).clamp(max=reach)
    columns = (rows * slopes).round().long()
    lit = torch.zeros(STROKES, TILE, TILE, dtype=torch.bool)
    lit[torch.arange(STROKES)[:, None], rows.round().long(), columns] = True
    return lit


def _lit_pixels(
    stroke_tiles: Tensor, stroke_corners: Tensor, digit_tiles: Tensor, corners: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """Return the indices and the values of the lit pixels of an image.

    Where strokes cross, the brighter pixel is visible; a digit hides everything below its tile.
    """
    lit = stroke_tiles > 0
    stroke_pixels = _pixel_indices(stroke_corners, side)[lit]
    digit_pixels = _pixel_indices(corners, side).flatten()
    pixels, inverse = torch.cat([stroke_pixels, digit_pixels]).unique(return_inverse=True)
    values = torch.zeros(len(pixels), dtype=torch.uint8)
    values.scatter_reduce_(0, inverse[: len(stroke_pixels)], stroke_tiles[lit], "amax")
    values[inverse[len(stroke_pixels) :]] = digit_tiles.flatten()
    visible = values > 0
    return pixels[visible].int(), values[visible]


def _pixel_indices(corners: Tensor, side: int) -> Tensor:
    """Return the indices (T, TILE, TILE), row by row, of the pixels of tiles at corners (T, 2)."""
    steps = torch.arange(TILE)
    rows = corners[:, 1, None, None] + steps[:, None]
    return rows * side + corners[:, 0, None, None] + steps


def _labels(digits: Tensor, corners: Tensor) -> dict[str, Tensor]:
    """Return the labels of all tasks for digits (N, D) at corners (N, D, 2)."""
    topmost = corners[..., 1].argmin(dim=1)
    present = torch.zeros(len(digits), 10, dtype=torch.bool).scatter_(1, digits, True)
    return {
        "majority": digits.mode(dim=1).values,
        "max": digits.amax(dim=1),
        "topmost": digits.gather(1, topmost[:, None])[:, 0],
        "multi-label": present,
    }
