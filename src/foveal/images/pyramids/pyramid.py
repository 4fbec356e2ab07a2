"""The interface of large image formats.

A pyramid is an image that its file stores at one or more resolutions (levels). A format reads the
pixels of a box, a rectangle of pixels of one level; it decodes the blocks (tiles, strips or chunks)
that the box overlaps.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveal.foundation.errors import UserError
from foveal.images.geometry import Size

CACHE_BYTES = 64 * 2**20  # maximum bytes of decoded pixels that a pyramid keeps
# Limits on the size that a file declares. It may be huge even in a tiny file, because a file may
# omit chunks.
MAX_SIDE, MAX_PIXELS = 2**20, 2**36
MAX_BLOCK = 128 * 2**20  # maximum bytes of a block, since a block is decoded at once


@dataclass(frozen=True)
class Level:
    """One of the resolutions at which a file stores its image.

    Attributes:
        size: height and width in pixels.
        block: height and width in pixels of a block, the part that is decoded at once.
        scale: side of a pixel of this level, in pixels of the finest level.
    """

    size: Size
    block: Size
    scale: float


class Pyramid(ABC):
    """A file of one large image, opened but not read.

    Subclasses are final and set in their constructor:

    Attributes:
        levels: the resolutions, in descending order; the first is the image itself.
        channels: 1 (greyscale) or 3 (colour).
        note: text of a warning about how the file is read, or empty.
    """

    levels: list[Level]
    channels: int
    note: str = ""

    @abstractmethod
    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box inside a level, as floats (height, width, channels) in [0, 1].

        Args:
            level: index in `levels`.
            top: y of the first pixel of the box.
            left: x of the first pixel of the box.
            height: height of the box in pixels of the level.
            width: width of the box in pixels of the level.

        Raises:
            UserError: its pixels are missing or broken.
        """

    def close(self) -> None:  # noqa: B027 - some pyramids keep no file open
        """Close the file."""


def make_levels(sizes: Sequence[Size], blocks: Sequence[Size]) -> list[Level]:
    """Return the levels of an image, the finest first.

    Sizes with another aspect ratio than the first are skipped. When an odd side is halved, it is
    rounded, so the ratio of two sizes is not exactly the scale. If an integer scale explains the
    ratio, the scale is that integer.

    Args:
        sizes: height and width of each level; the first is the image itself.
        blocks: height and width of the blocks of each level.

    Raises:
        UserError: a side is zero or too long, or the image has too many pixels.
    """
    for side in (side for size in (*sizes, *blocks) for side in size):
        if not 1 <= side <= MAX_SIDE:
            raise UserError(f"a side of {side:,} pixels: expected from 1 to {MAX_SIDE:,}")
    height, width = sizes[0]
    if height * width > MAX_PIXELS:
        raise UserError(f"{width:,}x{height:,} pixels: expected at most {MAX_PIXELS:,}")
    levels = [Level(sizes[0], blocks[0], 1.0)]
    for size, block in zip(sizes[1:], blocks[1:], strict=True):
        y_scale, x_scale = height / size[0], width / size[1]
        integer = max(1, round(y_scale if height >= width else x_scale))
        pairs = ((height, size[0]), (width, size[1]))
        # Sides may be rounded up or down.
        if all(small in (-(-side // integer), side // integer) for side, small in pairs):
            levels.append(Level(size, block, float(integer)))
        elif abs(y_scale / x_scale - 1) < 0.01 and y_scale > 1:
            levels.append(Level(size, block, (y_scale * x_scale) ** 0.5))
    return sorted(levels, key=lambda level: level.scale)


class BlockCache:
    """A cache of the most recently used decoded blocks, of bounded size.

    Args:
        budget: maximum bytes of all blocks. The last block is kept even if it exceeds them.
    """

    def __init__(self, budget: int = CACHE_BYTES):
        self.budget = budget
        self.kept: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the block with a key, decoded if it is not in the cache."""
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        block = decode()
        self.kept[key] = block
        self.bytes += block.nbytes
        while self.bytes > self.budget and len(self.kept) > 1:
            _, least_recent = self.kept.popitem(last=False)
            self.bytes -= least_recent.nbytes
        return block


class ChangeDetector:
    """Detector of changes to a file since this object was created.

    Args:
        path: path of the file, or of a file in a folder that changes with the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.initial = self._state()

    def check(self) -> None:
        """Raise UserError if the file has changed."""
        if self._state() != self.initial:
            raise UserError("the file changed while it was read: wait until it is complete")

    def _state(self) -> tuple[int, int, int]:
        """Return the size, time of modification and inode of the file."""
        try:
            status = self.path.stat()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}") from None
        return status.st_size, status.st_mtime_ns, status.st_ino


def check_block(size: Size, channels: int, value_bytes: int) -> None:
    """Raise UserError if a block would take too much memory.

    Args:
        size: height and width of the block in pixels.
        channels: number of channels.
        value_bytes: bytes per value.
    """
    block_bytes = size[0] * size[1] * channels * value_bytes
    if block_bytes > MAX_BLOCK:
        raise UserError(
            f"{size[1]:,}x{size[0]:,} pixels must be decoded at once ("
            f"{block_bytes / 1e6:,.0f} MB): store the image in tiles, such as a tiled TIFF"
        )
