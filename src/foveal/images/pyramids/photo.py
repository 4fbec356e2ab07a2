"""JPEG, PNG and other formats of Pillow: decoded as a whole, JPEG coarsely for thumbnails."""

from pathlib import Path

import numpy as np

from foveal.images.decode import read_header
from foveal.images.pyramids.pyramid import Pyramid, make_levels
from foveal.images.reading import decode, without_warnings
from foveal.images.values import as_fractions

COARSER = (1, 2, 4, 8)  # a JPEG can be decoded at a size divided by these


class Photo(Pyramid):
    """An image in a format that cannot be read in part.

    It is decoded as a whole, once, when pixels at full resolution are read; a thumbnail of a JPEG
    costs a fraction of that. `images.decode.MAX_PIXELS` bounds the memory.

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
        coarser = header.jpeg and min(header.size) >= 8 * COARSER[-1]
        self.coarser = COARSER if coarser else COARSER[:1]
        self.channels = header.channels
        sizes = [(-(-height // n), -(-width // n)) for n in self.coarser]
        self.levels = make_levels(sizes, sizes)

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, channels) in [0, 1]."""
        with without_warnings():
            pixels = self._decode(self.coarser[level])
        box = pixels[top : top + height, left : left + width]
        return as_fractions(box)

    def _decode(self, coarser: int) -> np.ndarray:
        """Return all pixels (height, width, channels), uint8, at a fraction of the resolution."""
        if coarser not in self.decoded:
            decoded = decode(self.path, None, self.channels, coarser)
            self.note = decoded.note
            self.decoded[coarser] = decoded.image.permute(1, 2, 0).numpy()
        return self.decoded[coarser]
