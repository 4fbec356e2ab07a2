"""Large images in the formats of slide scanners, which OpenSlide reads."""

from pathlib import Path

import numpy as np

from foveal.foundation.errors import UserError, missing_extra, one_line
from foveal.images.pyramids.pyramid import Pyramid, make_levels
from foveal.images.values import as_fractions

# Side in pixels of the part that is read at once. OpenSlide decodes and caches tiles itself.
BLOCK = 512


class Slide(Pyramid):
    """A scanned slide in any format that OpenSlide reads. Regions that were not scanned are white.

    Args:
        path: path of the file.

    Raises:
        UserError: OpenSlide is not installed, or cannot read the file.
    """

    channels = 3

    def __init__(self, path: Path):
        try:
            import openslide
        except ImportError:
            raise missing_extra("openslide-python and openslide-bin", "slides") from None
        self.errors = (openslide.OpenSlideError, OSError)
        if not path.exists():
            raise UserError("the file does not exist")
        try:
            self.slide = openslide.OpenSlide(path)
        except self.errors as error:
            raise UserError(f"not a slide that OpenSlide reads: {one_line(error, 120)}") from None
        sizes = [(height, width) for width, height in self.slide.level_dimensions]
        self.levels = make_levels(sizes, [(BLOCK, BLOCK)] * len(sizes))
        # OpenSlide's index of each level, since levels with another aspect ratio are skipped.
        self.indices = [sizes.index(level.size) for level in self.levels]

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, 3) in [0, 1]."""
        index = self.indices[level]
        downsample = self.slide.level_downsamples[index]
        # OpenSlide expects the corner in pixels of its finest level.
        corner = (round(left * downsample), round(top * downsample))
        try:
            region = self.slide.read_region(corner, index, (width, height))
        except self.errors as error:
            raise UserError(
                f"the pixels at ({corner[0]}, {corner[1]}) are broken: {one_line(error, 120)}"
            ) from None
        pixels = as_fractions(np.asarray(region))
        alpha = pixels[..., 3:]
        return pixels[..., :3] * alpha + 1 - alpha

    def close(self) -> None:
        """Close the file."""
        self.slide.close()
