"""A set of large images in files, which are read in part."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.images.geometry import Size
from foveal.images.pyramids.image import LargeImage
from foveal.images.pyramids.opening import open_large
from foveal.images.pyramids.pyramid import ChangeDetector

MAX_OPEN = 8  # maximum number of open files; the most recently used stay open


class LargeFiles:
    """Images in files, as `foveal.images.LargeImages`; a file is opened when a part of it is read.

    All images have the size of the largest: smaller ones are padded with black below and to the
    right.

    Args:
        paths: paths of the files; the constructor opens each once to read its size.
        channels: 1 for greyscale, 3 for colour.

    Raises:
        UserError: a file cannot be read, or there are no files.
    """

    def __init__(self, paths: Sequence[Path], channels: int):
        if not paths:
            raise UserError("Expected at least 1 image, but got none.")
        self.paths = tuple(paths)
        self.channels = channels
        self._opened: OrderedDict[int, LargeImage] = OrderedDict()
        self._change_detectors: dict[int, ChangeDetector] = {}  # including files that are closed
        self.sizes = [self.image(index).size for index in range(len(paths))]

    @property
    def size(self) -> Size:
        """Height and width of each padded image in pixels, the maxima over all files."""
        return max(height for height, _ in self.sizes), max(width for _, width in self.sizes)

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> LargeImage:
        """Return the image at an index, opened if necessary, without padding.

        Raises:
            UserError: the file cannot be read, or has changed since it was first opened.
        """
        if index in self._opened:
            self._opened.move_to_end(index)
            return self._opened[index]
        try:
            if index in self._change_detectors:
                self._change_detectors[index].check()
            image = open_large(self.paths[index], self.channels)
        except UserError as error:
            raise UserError(f"{self.paths[index]}: {error}") from None
        self._opened[index] = image
        self._change_detectors.setdefault(index, image.change_detector)
        if len(self._opened) > MAX_OPEN:
            _, least_recent = self._opened.popitem(last=False)
            least_recent.close()
        return image

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the images at indices (B,), shrunk as `LargeImages.thumbnails` describes.

        Raises:
            UserError: pixels are missing or broken.
        """
        rows, columns = self.size[0] // shrink, self.size[1] // shrink
        indices = numbers.tolist()
        return torch.stack([self._means(index, 0, 0, rows, columns, shrink) for index in indices])

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of the images at indices (B,), as `LargeImages.crops` describes.

        Raises:
            UserError: pixels are missing or broken.
        """
        samples = side // shrink
        crops = [
            torch.stack([self._means(index, x, y, samples, samples, shrink) for x, y in corners])
            for index, corners in zip(numbers.tolist(), corners_px.tolist(), strict=True)
        ]
        return torch.stack(crops)

    def _means(
        self, index: int, left: int, top: int, rows: int, columns: int, shrink: int
    ) -> Tensor:
        """Return `LargeImage.means` of the image at `index`; errors begin with its path."""
        try:
            return self.image(index).means(left, top, rows, columns, shrink)
        except UserError as error:
            if str(error).startswith(str(self.paths[index])):  # `image` has already added it
                raise
            raise UserError(f"{self.paths[index]}: {error}") from None
