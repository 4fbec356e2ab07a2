"""Large images in JPEG, PNG and other formats of Pillow, which are decoded as a whole.

For a thumbnail, a JPEG is decoded at a lower resolution.
"""

from pathlib import Path

import numpy as np

from foveal.images.decode import read_header
from foveal.images.pyramids.pyramid import Pyramid, make_levels
from foveal.images.reading import decode, without_warnings
from foveal.images.values import as_fractions

# A JPEG can be decoded at its size divided by each of these; the results serve as levels.
DIVISORS = (1, 2, 4, 8)


class Photo(Pyramid):
    """An image in a format that cannot be read in part.

    The whole image is decoded when pixels are read for the first time, and then kept in memory,
    which `images.decode.MAX_PIXELS` bounds. For a thumbnail, a JPEG is decoded at a lower
    resolution, which costs a fraction of the time.

    Args:
        path: path of the file.

    Raises:
        UserError: not an image, or too large to be decoded as a whole.
    """

    def __init__(self, path: Path):
        self.path = path
        self.decoded: dict[int, np.ndarray] = {}
        with without_warnings():
            header = read_header(path)
        height, width = header.size
        has_levels = header.decodes_coarsely and min(header.size) >= 8 * DIVISORS[-1]
        self.divisors = DIVISORS if has_levels else DIVISORS[:1]
        self.channels = header.channels
        sizes = [(-(-height // n), -(-width // n)) for n in self.divisors]
        self.levels = make_levels(sizes, sizes)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, channels) in [0, 1]."""
        with without_warnings():
            pixels = self._decode(self.divisors[level])
        box = pixels[top : top + height, left : left + width]
        return as_fractions(box)

    def _decode(self, divisor: int) -> np.ndarray:
        """Return all pixels, uint8 (height, width, channels), with sides divided by `divisor`."""
        if divisor not in self.decoded:
            decoded = decode(self.path, None, self.channels, coarser=divisor)
            self.note = decoded.note
            self.decoded[divisor] = decoded.image.permute(1, 2, 0).numpy()
        return self.decoded[divisor]
