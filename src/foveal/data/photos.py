"""Large photos that stay on disk: each is decoded when a part of it is read."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.data.reading import read_image
from foveal.errors import UserError
from foveal.geometry import Size
from foveal.large import shrunk

KEPT_BYTES = 300_000_000  # of decoded images: a batch's thumbnails are read first, then its patches


class Photos:
    """Image files of any sizes, read as large images are.

    Their `size` is the greatest height and the greatest width; what an image lacks to that is
    black. An image is decoded whole, and the latest ones are kept for what is read of them next.

    Args:
        paths: of the files.
        size: height and width in pixels that none of them exceeds.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(self, paths: Sequence[Path], size: Size, channels: int):
        self.paths, self._size, self.channels = tuple(paths), size, channels
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""
        return self._size

    def __len__(self) -> int:
        return len(self.paths)

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the means of squares of some of the images (B, C, H // shrink, W // shrink).

        Raises:
            UserError: a file cannot be read.
        """
        height, width = (side // shrink for side in self.size)
        found = torch.zeros(len(numbers), self.channels, height, width)
        for place, number in zip(found, numbers.tolist(), strict=True):
            image = self._image(number)
            lacking = (-image.shape[2] % shrink, -image.shape[1] % shrink)
            image = F.pad(image, (0, lacking[0], 0, lacking[1]))
            means = F.avg_pool2d(image.float() / 255, shrink)[:, :height, :width]
            place[:, : means.shape[1], : means.shape[2]] = means
        return found

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of some of the images (B, K, C, side // shrink, side // shrink).

        Raises:
            UserError: a file cannot be read.
        """
        found = torch.zeros(*corners_px.shape[:2], self.channels, side, side)
        for squares, number, corners in zip(found, numbers.tolist(), corners_px, strict=True):
            image = self._image(number)
            height, width = image.shape[-2:]
            for square, (x, y) in zip(squares, corners.tolist(), strict=True):
                top, left = max(y, 0), max(x, 0)
                bottom, right = min(y + side, height), min(x + side, width)
                if top < bottom and left < right:
                    part = image[:, top:bottom, left:right].float() / 255
                    square[:, top - y : bottom - y, left - x : right - x] = part
        return shrunk(found, shrink)

    def _image(self, number: int) -> Tensor:
        """Return one image as bytes (C, H, W)."""
        if number not in self._kept:
            path = self.paths[number]
            try:
                image = read_image(path, channels=self.channels)
            except UserError as error:
                raise UserError(f"{path}: {error}") from None
            if image.shape[1] > self.size[0] or image.shape[2] > self.size[1]:
                raise UserError(f"{path} has changed while it was used: it is larger than before.")
            self._kept[number] = image
            while sum(kept.numel() for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
                if not self._kept:
                    return image
        return self._kept[number]
