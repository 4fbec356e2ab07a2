"""One large image, from which thumbnails and averages over square blocks of pixels are read.

The averages are called means of squares; they are computed from a level of the file, which is the
image at one of its stored resolutions.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.images.geometry import Size
from foveal.images.pyramids.pyramid import CACHE_BYTES, ChangeDetector, Level, Pyramid

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as in Pillow
# If the side of a square spans at least this many pixels of a level, the level is fine enough even
# where the edges of the square cut through pixels, because these are a small part of the square.
FINE_PIXELS = 4
PART_SIDE = 512  # side of the part that is averaged at once, in pixels of a level


class LargeImage:
    """An image in a file; only the parts that are read are decoded.

    Args:
        pyramid: the opened file.
        path: file that is watched for changes: the image itself or, if the image is a folder, a
            file in it that is rewritten whenever the image is.
        channels: 1 for greyscale, 3 for colour, None for as many as the image has.

    Attributes:
        change_detector: detects whether the file has changed since it was opened.
    """

    def __init__(self, pyramid: Pyramid, path: Path, channels: int | None = None):
        self.pyramid = pyramid
        self.channels = channels or pyramid.channels
        self.change_detector = ChangeDetector(path)

    @property
    def size(self) -> Size:
        """Height and width in pixels."""
        return self.pyramid.levels[0].size

    @property
    def note(self) -> str:
        """Text of a warning about how this file is read, or empty."""
        return self.pyramid.note

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the image shrunk to (C, H // shrink, W // shrink), as floats in [0, 1].

        Args:
            shrink: side in pixels of the squares that are averaged, at least 1.

        Raises:
            UserError: pixels are missing or broken, or the file is being written to.
        """
        return self.means(0, 0, self.size[0] // shrink, self.size[1] // shrink, shrink)

    def means(self, left: int, top: int, rows: int, columns: int, shrink: int = 1) -> Tensor:
        """Return averages over square blocks of pixels (C, rows, columns), floats in [0, 1].

        They are computed from the coarsest level of the file that is fine enough, and are exact if
        each level consists of exact means of the image. Pixels outside the image are black.

        Args:
            left: x of the first pixel.
            top: y of the first pixel.
            rows: number of squares downwards.
            columns: number of squares to the right.
            shrink: side of a square in pixels; 1 for the pixels themselves.

        Raises:
            UserError: pixels are missing or broken, or the file is being written to.
        """
        level_index, level = self._choose_level(shrink)
        # A grey image is summed as one channel, and expanded to three only at the end. Matrix
        # products may round the sums of equal channels differently, so three would not stay equal.
        channels = min(self.channels, self.pyramid.channels)
        means = np.zeros((rows, columns, channels), dtype=np.float32)
        level_height, level_width = level.size
        for part_rows, part_columns in self._parts(level, rows, columns, shrink):
            y, y_weights = _overlaps(part_rows, top, shrink, level.scale, level_height)
            x, x_weights = _overlaps(part_columns, left, shrink, level.scale, level_width)
            if len(y) and len(x):
                pixels = self._read(level_index, y, x)
                summed = np.tensordot(y_weights, pixels, axes=1)  # (rows, width, C)
                part = np.einsum("rwc,vw->rvc", summed, x_weights, optimize=True)
                first_row, first_column = part_rows.start, part_columns.start
                means[first_row : part_rows.stop, first_column : part_columns.stop] = part
        self.change_detector.check()
        planes = torch.from_numpy(means).permute(2, 0, 1)  # (1 or C, rows, columns)
        return planes.expand(self.channels, -1, -1).contiguous()

    def close(self) -> None:
        """Close the file."""
        self.pyramid.close()

    def _read(self, level: int, y: range, x: range) -> np.ndarray:
        """Return a box of a level, as floats (height, width, C), grey if `channels` is 1."""
        try:
            pixels = self.pyramid.read(level, y.start, x.start, len(y), len(x))
        except UserError:
            self.change_detector.check()  # reading an incomplete file fails in many ways
            raise
        if self.channels < pixels.shape[2]:
            return (pixels @ LUMA)[..., None]
        return pixels

    def _choose_level(self, shrink: int) -> tuple[int, Level]:
        """Return the coarsest level that is fine enough for means of squares, and its index."""
        levels = enumerate(self.pyramid.levels)  # the finest first
        return [(index, level) for index, level in levels if _is_fine(level, shrink)][-1]

    def _parts(
        self, level: Level, rows: int, columns: int, shrink: int
    ) -> Iterator[tuple[range, range]]:
        """Yield the rows and columns of squares that are averaged at once, part by part.

        The memory of a part is bounded, and all parts together decode each block about once.
        """
        height, width = level.block
        if width >= level.size[1]:
            # The blocks are strips as wide as the level, so all parts of a row read the same ones.
            # The height is limited so that these fit into half of the cache until the row is done.
            pixel_bytes = 4 * self.pyramid.channels
            height = max(height, min(PART_SIDE, CACHE_BYTES // (2 * level.size[1] * pixel_bytes)))
            width = PART_SIDE
        square_side = shrink / level.scale  # in pixels of the level
        row_step = _squares_per_part(height, square_side)
        column_step = _squares_per_part(width, square_side)
        for row in range(0, rows, row_step):
            for column in range(0, columns, column_step):
                yield (
                    range(row, min(row + row_step, rows)),
                    range(column, min(column + column_step, columns)),
                )


def _squares_per_part(block_side: int, square_side: float) -> int:
    """Return the number of squares, at least 1, that are averaged at once along one axis.

    Together they span up to `PART_SIDE` pixels of the level, or a block if that is longer, because
    a block is always decoded as a whole.

    Args:
        block_side: side of a block along the axis, in pixels of the level.
        square_side: side of a square, in pixels of the level.
    """
    if block_side > PART_SIDE:
        return max(1, int(block_side // square_side))
    return max(1, int(PART_SIDE / square_side))


def _is_fine(level: Level, shrink: int) -> bool:
    """Return whether the means of squares can be computed from a level.

    They can if each square consists of whole pixels of the level, or of so many pixels that those
    at its edges, of which only a part is inside, do not matter.
    """
    ratio = shrink / level.scale  # side of a square in pixels of the level
    # The ratio is within 0.01 of a positive integer if its fractional part is more than 0.49 away
    # from 0.5.
    is_integer = ratio > 0.99 and abs(ratio % 1 - 0.5) > 0.49
    return level.scale == 1 or ratio >= FINE_PIXELS or is_integer


def _overlaps(
    squares: range, first: int, shrink: int, scale: float, length: int
) -> tuple[range, np.ndarray]:
    """Return the pixels of a level that squares cover along one axis, and the pixels' weights.

    Args:
        squares: indices of the squares.
        first: start of square 0 in pixels of the image.
        shrink: length of a square in pixels of the image.
        scale: length of a pixel of the level in pixels of the image.
        length: number of the level's pixels along the axis.

    Returns:
        The pixels, and the fraction of each square that each pixel covers (squares, pixels).
    """
    begins = (first + np.arange(squares.start, squares.stop) * shrink) / scale
    ends = begins + shrink / scale
    low = min(max(0, int(np.floor(begins[0]))), length)
    # Without 1e-9, a rounding error could add a pixel that the last square does not cover.
    stop = min(length, int(np.ceil(ends[-1] - 1e-9)))
    pixels = range(low, max(low, stop))  # empty if all squares are outside the level
    starts = np.arange(pixels.start, pixels.stop)
    covered = np.minimum(ends[:, None], starts + 1) - np.maximum(begins[:, None], starts)
    return pixels, (covered.clip(min=0) * scale / shrink).astype(np.float32)
