"""Large images, of which a model reads a thumbnail and a few places: what can be read, and how."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.geometry import Size


class LargeImages(Protocol):
    """Images of one size that are read in part: coarsely as a whole, closely at a few places.

    They may lie in memory, in files, or be drawn when they are asked for; reading one must cost no
    more than what is returned of it, where its format allows that. Images that are smaller than
    `size` have black below and to the right of them.
    """

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""

    def __len__(self) -> int:
        """Return how many images there are."""

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the means of squares of some of the images (B, C, H // shrink, W // shrink).

        Args:
            numbers: (B,) of the images.
            shrink: side of a square in pixels, at least 1.

        Returns:
            Floats in [0, 1], as `F.avg_pool2d` makes them of the whole image.
        """

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of some of the images (B, K, C, side // shrink, side // shrink).

        Args:
            numbers: (B,) of the images.
            corners_px: (B, K, 2) whole numbers (x, y), the first pixel of each square; what lies
                outside of the image is black.
            side: of the squares in pixels of the image, a multiple of `shrink`.
            shrink: each pixel returned is the mean of a square of this side.

        Returns:
            Floats in [0, 1].
        """


class ImagesInMemory:
    """Images that are there as one tensor, read as large ones are.

    Args:
        images: (N, C, H, W), floats, or bytes.
    """

    def __init__(self, images: Tensor):
        self.images = images

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the means of squares of some of the images (B, C, H // shrink, W // shrink)."""
        return F.avg_pool2d(_floats(self.images[numbers]), shrink)

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of some of the images (B, K, C, side // shrink, side // shrink)."""
        height, width = self.size
        steps = torch.arange(side, device=corners_px.device)
        rows = (corners_px[..., 1, None] + steps)[..., :, None]  # (B, K, side, 1)
        columns = (corners_px[..., 0, None] + steps)[..., None, :]  # (B, K, 1, side)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        place = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        flat = self.images.flatten(2)  # (N, C, H * W)
        found = flat[numbers[:, None, None, None], :, place]  # (B, K, side, side, C)
        found = _floats(found) * inside[..., None]
        found = found.movedim(-1, 2)
        return shrunk(found, shrink)


def shrunk(crops: Tensor, shrink: int) -> Tensor:
    """Return the means of squares of crops (B, K, C, S, S): (B, K, C, S // shrink, S // shrink)."""
    if shrink == 1:
        return crops
    return F.avg_pool2d(crops.flatten(0, 1), shrink).unflatten(0, crops.shape[:2])


def _floats(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_floating_point() else pixels.float() / 255
