"""One large image, read as thumbnails and means of squares."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.images.geometry import Size
from foveal.images.pyramids.pyramid import CACHE, ChangeDetector, Level, Pyramid

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as in Pillow
FINE_PIXELS = 4  # pixels of a level per side of a square from which blurred edges do not matter
PART_SIDE = 512  # side of the part that is averaged at once, in pixels of a level


class LargeImage:
    """An image in a file; only the parts that are read are decoded.

    Args:
        pyramid: the opened file.
        path: path of a file that changes if the image is written to.
        channels: 1 for greyscale, 3 for colour, None for those of the image.

    Attributes:
        unchanged: detects whether the file has changed since it was opened.
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
        """Warning about reading this file, or empty."""
        return self.pyramid.note

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the means of squares (C, H // shrink, W // shrink), floats in [0, 1].

        Args:
            shrink: side of a square in pixels, at least 1.

        Raises:
            UserError: pixels are missing or broken, or the file is being written to.
        """
        return self.means(0, 0, self.size[0] // shrink, self.size[1] // shrink, shrink)

    def means(self, left: int, top: int, rows: int, columns: int, shrink: int = 1) -> Tensor:
        """Return the means of squares (C, rows, columns), floats in [0, 1].

        They are read from the coarsest level of the file that is fine enough, and are exact if
        its levels are exact means of each other. Pixels outside the image are black.

        Args:
            left: x of the first pixel.
            top: y of the first pixel.
            rows: number of squares downwards.
            columns: number of squares to the right.
            shrink: side of a square in pixels; 1 for the pixels themselves.

        Raises:
            UserError: pixels are missing or broken, or the file is being written to.
        """
        number, level = self._level(shrink)
        # A single channel is repeated at the end, since matrix products round columns differently.
        channels = min(self.channels, self.pyramid.channels)
        means = np.zeros((rows, columns, channels), dtype=np.float32)
        for down, across in self._parts(level, rows, columns, shrink):
            y, y_weights = _overlaps(down, top, shrink, level.scale, level.size[0])
            x, x_weights = _overlaps(across, left, shrink, level.scale, level.size[1])
            if len(y) and len(x):
                pixels = self._read(number, y, x)
                summed = np.tensordot(y_weights, pixels, axes=1)  # (rows, width, C)
                means[down.start : down.stop, across.start : across.stop] = np.einsum(
                    "rwc,vw->rvc", summed, x_weights, optimize=True
                )
        self.change_detector.check()
        planes = torch.from_numpy(means).permute(2, 0, 1)  # (1 or C, rows, columns)
        return planes.expand(self.channels, -1, -1).contiguous()

    def close(self) -> None:
        """Close the file."""
        self.pyramid.close()

    def _read(self, level: int, y: range, x: range) -> np.ndarray:
        try:
            pixels = self.pyramid.read(level, y.start, x.start, len(y), len(x))
        except UserError:
            self.change_detector.check()  # a file that is being written fails in many ways
            raise
        if self.channels < pixels.shape[2]:
            return (pixels @ LUMA)[..., None]
        return pixels

    def _level(self, shrink: int) -> tuple[int, Level]:
        """Return the coarsest level that is fine enough for means of squares, and its index."""
        levels = enumerate(self.pyramid.levels)
        return [(index, level) for index, level in levels if _is_fine(level, shrink)][-1]

    def _parts(
        self, level: Level, rows: int, columns: int, shrink: int
    ) -> Iterator[tuple[range, range]]:
        """Yield the squares in parts of bounded memory, which read each block about once."""
        high, wide = level.block
        if wide >= level.size[1]:  # strips: a row of parts must fit into the cache
            bytes_each = 4 * self.pyramid.channels
            high = max(high, min(PART_SIDE, CACHE // (2 * level.size[1] * bytes_each)))
            wide = PART_SIDE
        per_square = shrink / level.scale
        steps = [
            max(1, int(side // per_square))
            if side > PART_SIDE
            else max(1, int(PART_SIDE / per_square))
            for side in (high, wide)
        ]
        for row in range(0, rows, steps[0]):
            for column in range(0, columns, steps[1]):
                yield (
                    range(row, min(row + steps[0], rows)),
                    range(column, min(column + steps[1], columns)),
                )


def _is_fine(level: Level, shrink: int) -> bool:
    """Return whether squares consist of whole pixels of a level, or of many pixels."""
    ratio = shrink / level.scale
    return (
        level.scale == 1 or ratio >= FINE_PIXELS or (ratio > 0.99 and abs(ratio % 1 - 0.5) > 0.49)
    )


def _overlaps(
    squares: range, first: int, shrink: int, scale: float, length: int
) -> tuple[range, np.ndarray]:
    """Return which of a level's pixels squares cover along a side, and each pixel's fraction.

    Args:
        squares: indices of the squares.
        first: start of square 0 in pixels of the image.
        shrink: length of a square in pixels of the image.
        scale: length of the level's pixels in pixels of the image.
        length: number of the level's pixels along the side.

    Returns:
        The pixels, and the fraction of each square that each pixel covers (squares, pixels).
    """
    begins = (first + np.arange(squares.start, squares.stop) * shrink) / scale
    ends = begins + shrink / scale
    low = min(max(0, int(np.floor(begins[0]))), length)
    pixels = range(low, max(low, min(length, int(np.ceil(ends[-1] - 1e-9)))))
    starts = np.arange(pixels.start, pixels.stop)
    covered = np.minimum(ends[:, None], starts + 1) - np.maximum(begins[:, None], starts)
    return pixels, (covered.clip(min=0) * scale / shrink).astype(np.float32)
