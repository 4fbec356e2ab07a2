"""Views: batches of images that a model reads as a whole, as thumbnails, as crops or in patches.

A view hides whether its images are in memory (`WholeView`) or are read in part (`PartView`). To
shrink an image by n is to replace each square of n x n pixels by its mean.
"""

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.images.geometry import Size, corners_px, cut_patches, extract_patches, snap


@runtime_checkable
class LargeImages(Protocol):
    """Images of one size that are read in part, as thumbnails and as crops.

    They may be in memory, in files, or generated on demand. If the format allows it, the cost of
    reading should depend on the number of pixels that are returned, not on the size of the image.
    Images smaller than `size` are padded with black below and to the right.
    """

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""

    def __len__(self) -> int:
        """Return the number of images."""

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the images at some indices, shrunk (B, C, H // shrink, W // shrink).

        Args:
            numbers: (B,) indices of the images.
            shrink: side in pixels of the squares that are averaged, at least 1.

        Returns:
            Floats in [0, 1], equal to `F.avg_pool2d` of the whole images.
        """

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return K squares of each image at some indices.

        Args:
            numbers: (B,) indices of the images.
            corners_px: (B, K, 2) integers (x, y), the first pixel of each square; pixels outside
                the image are black.
            side: side of the squares in pixels of the image, a multiple of `shrink`.
            shrink: side in pixels of the smaller squares that are averaged; 1 for all pixels.

        Returns:
            Floats in [0, 1], of shape (B, K, C, side // shrink, side // shrink).
        """


class SomeImages:
    """A selection of large images (`LargeImages`), which are read on demand.

    Args:
        images: all images.
        chosen: (M,) indices of the selected images, in the order of the selection.
    """

    def __init__(self, images: LargeImages, chosen: Tensor):
        self.images = images
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""
        return self.images.size

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return shrunk images; `numbers` are indices (B,) into the selection."""
        return self.images.thumbnails(self.chosen[numbers], shrink)

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of images; `numbers` are indices (B,) into the selection."""
        return self.images.crops(self.chosen[numbers], corners_px, side, shrink)


def selected(images: Any, indices: Tensor) -> Any:
    """Return the images at indices (M,) of a tensor, photographs or large images."""
    return SomeImages(images, indices) if isinstance(images, LargeImages) else images[indices]


class View(Protocol):
    """A batch of images as a model reads them, normalised and on the model's device.

    Attributes:
        in_part: whether to read the whole images costs much more than to read some of their pixels.
    """

    in_part: bool

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""

    def whole(self) -> Tensor:
        """Return all pixels of the images (B, C, H, W)."""

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the images shrunk by `shrink`, (B, C, H // shrink, W // shrink)."""

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return K squares of each image, shrunk by `shrink`.

        Args:
            corners_px: (B, K, 2) integers (x, y), the first pixel of each square; pixels outside
                the image are black.
            side: side of the squares in pixels of the image, a multiple of `shrink`.
            shrink: side in pixels of the smaller squares that are averaged; 1 for all pixels.

        Returns:
            (B, K, C, side // shrink, side // shrink).
        """

    def patches(self, keypoints: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return the whole-pixel patches nearest to keypoints, and the keypoints of their centres.

        Args:
            keypoints: (B, K, 2) in grid units.
            side: side P of a patch in pixels.

        Returns:
            Patches (B, K, C, P, P), and the keypoints (B, K, 2) at their centres.

        Raises:
            UserError: the images are smaller than a patch.
        """

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches of bilinear samples around keypoints.

        Args:
            keypoints: (B, K, 2) in grid units.
            side: side P of a patch in samples.
            scales: (B, K) pixels from one sample to the next.

        Returns:
            Patches (B, K, C, P, P).
        """


class PartView:
    """A batch of large images, whose pixels are normalised when they are read.

    Args:
        images: large images.
        numbers: (B,) indices of the images in the batch.
        mean: (1, C, 1, 1), which is subtracted from the pixels. Its device and type are those of
            the pixels that the view returns.
        std: (1, C, 1, 1), by which the difference is divided.
    """

    in_part = True

    def __init__(self, images: LargeImages, numbers: Tensor, mean: Tensor, std: Tensor):
        self.images = images
        self.numbers = numbers
        self.mean = mean
        self.std = std

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""
        return self.images.size

    def whole(self) -> Tensor:
        """Return all pixels of the images (B, C, H, W)."""
        return self.thumbnail(1)

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the images shrunk by `shrink`, (B, C, H // shrink, W // shrink)."""
        return (self.images.thumbnails(self.numbers, shrink).to(self.mean) - self.mean) / self.std

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares (B, K, C, side // shrink, side // shrink), see `View.crops`."""
        crops = self.images.crops(self.numbers, corners_px.cpu(), side, shrink)
        return (crops.to(self.mean) - self.mean) / self.std

    def patches(self, keypoints: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return patches and their keypoints, see `View.patches`; no gradient reaches them."""
        snapped = snap(keypoints, side, self.size)
        return self.crops(corners_px(snapped, side, self.size), side), snapped

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches (B, K, C, P, P) of bilinear samples around keypoints."""
        return extract_patches(self.whole(), keypoints, side, scales)


class WholeView:
    """A batch of images in memory as one tensor, already normalised.

    Args:
        images: (B, C, H, W), normalised.
        black: (1, C, 1, 1), the value of black after normalisation, which pixels outside the images
            have; None for 0.
    """

    in_part = False

    def __init__(self, images: Tensor, black: Tensor | None = None):
        self.images = images
        self.black = images.new_zeros(1, 1, 1, 1) if black is None else black

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""
        return self.images.shape[-2], self.images.shape[-1]

    def whole(self) -> Tensor:
        """Return all pixels of the images (B, C, H, W)."""
        return self.images

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the images shrunk by `shrink`, (B, C, H // shrink, W // shrink)."""
        return F.avg_pool2d(self.images, shrink)

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares (B, K, C, side // shrink, side // shrink), see `View.crops`."""
        channels, height, width = self.images.shape[1:]
        steps = torch.arange(side, device=self.images.device)
        rows = (corners_px[..., 1, None] + steps)[..., :, None]  # (B, K, S, 1)
        columns = (corners_px[..., 0, None] + steps)[..., None, :]  # (B, K, 1, S)
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)  # (B, K, S, S)
        flat = index.flatten(1)[:, None].expand(-1, channels, -1)
        crops = self.images.flatten(2).gather(2, flat).unflatten(2, index.shape[1:])
        crops = torch.where(inside[:, None], crops, self.black[..., None])
        return block_means(crops.transpose(1, 2), shrink)

    def patches(self, keypoints: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return patches and their keypoints, see `View.patches`; gradients reach the keypoints."""
        return cut_patches(self.images, keypoints, side)

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches (B, K, C, P, P) of bilinear samples around keypoints."""
        return extract_patches(self.images, keypoints, side, scales)


def block_means(crops: Tensor, shrink: int) -> Tensor:
    """Return crops (B, K, C, S, S) shrunk by `shrink`, (B, K, C, S // shrink, S // shrink)."""
    if shrink == 1:
        return crops
    return F.avg_pool2d(crops.flatten(0, 1), shrink).unflatten(0, crops.shape[:2])
