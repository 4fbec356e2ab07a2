"""The interface of large image formats: pixels of a box, at one of the file's resolutions."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveal.foundation.errors import UserError
from foveal.images.geometry import Size

CACHE = 64 * 2**20  # bytes of decoded pixels that a pyramid keeps
MAX_SIDE, MAX_PIXELS = 2**20, 2**36  # of an image; chunks may be missing, so files may be tiny
MAX_BLOCK = 128 * 2**20  # bytes; larger blocks, which must be decoded at once, are rejected


@dataclass(frozen=True)
class Level:
    """One resolution in a file.

    Attributes:
        size: height and width in pixels.
        block: height and width in pixels of the part that is decoded at once.
        scale: width of one pixel of this level in pixels of the whole image.
    """

    size: Size
    block: Size
    scale: float


class Pyramid(ABC):
    """A file of one large image, opened but not read.

    Subclasses are final and set in their constructor:

    Attributes:
        levels: the resolutions, the finest first, which is the image itself.
        channels: 1 (greyscale) or 3 (colour).
        note: warning about reading this file, or empty.
    """

    levels: list[Level]
    channels: int
    note: str = ""

    @abstractmethod
    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box inside a level, as floats (height, width, channels) in [0, 1].

        Raises:
            UserError: its pixels are missing or broken.
        """

    def close(self) -> None:  # noqa: B027 - some keep no file open
        """Close the file."""


def make_levels(sizes: Sequence[Size], blocks: Sequence[Size]) -> list[Level]:
    """Return the levels of an image that are downsampled copies of it.

    Halving an odd side leaves half a pixel, so the ratio of the sizes is not exactly the scale.
    Where an integer scale explains the ratio, the scale is that integer.

    Args:
        sizes: height and width of each level, the image first.
        blocks: height and width of each level's blocks.

    Raises:
        UserError: an impossible size.
    """
    for side in (side for size in (*sizes, *blocks) for side in size):
        if not 1 <= side <= MAX_SIDE:
            raise UserError(f"a side of {side:,} pixels: expected from 1 to {MAX_SIDE:,}")
    height, width = sizes[0]
    if height * width > MAX_PIXELS:
        raise UserError(f"{width:,}x{height:,} pixels: expected at most {MAX_PIXELS:,}")
    levels = [Level(sizes[0], blocks[0], 1.0)]
    for size, block in zip(sizes[1:], blocks[1:], strict=True):
        down, across = height / size[0], width / size[1]
        integer = max(1, round(down if height >= width else across))
        pairs = ((height, size[0]), (width, size[1]))
        if all(small in (-(-side // integer), side // integer) for side, small in pairs):
            levels.append(Level(size, block, float(integer)))
        elif abs(down / across - 1) < 0.01 and down > 1:
            levels.append(Level(size, block, (down * across) ** 0.5))
    return sorted(levels, key=lambda level: level.scale)


class BlockCache:
    """A cache of the most recently used decoded blocks, of bounded size.

    Args:
        budget: maximum bytes of all blocks; one block is always kept.
    """

    def __init__(self, budget: int = CACHE):
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
            self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return block


class ChangeDetector:
    """Detector of writes to a file while it is read.

    Args:
        path: path of the file, or of a folder's metadata file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.initial = self._state()

    def check(self) -> None:
        """Raise UserError if the file has changed."""
        if self._state() != self.initial:
            raise UserError("the file changed while it was read: wait until it is complete")

    def _state(self) -> tuple[int, int, int]:
        try:
            status = self.path.stat()
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}") from None
        return status.st_size, status.st_mtime_ns, status.st_ino


def check_block(size: Size, channels: int, bytes_each: int) -> None:
    """Raise UserError if a block that is decoded at once would take too much memory."""
    needed = size[0] * size[1] * channels * bytes_each
    if needed > MAX_BLOCK:
        raise UserError(
            f"{size[1]:,}x{size[0]:,} pixels must be decoded at once ({needed / 1e6:,.0f} MB): "
            "store the image in tiles, such as a tiled TIFF"
        )
