"""Views: batches of images that are read as a whole, as thumbnails, or in patches."""

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.images.geometry import Size, corners_px, cut_patches, extract_patches, snap


@runtime_checkable
class LargeImages(Protocol):
    """Images of one size that are read in part: thumbnails of the whole, and crops in detail.

    They may be in memory, in files, or generated on demand. Reading should cost as much as the
    pixels returned, not as the whole image, if the format allows that. Images smaller than `size`
    are padded with black below and to the right.
    """

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""

    def __len__(self) -> int:
        """Return the number of images."""

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the means of squares of images at indices (B, C, H // shrink, W // shrink).

        Args:
            numbers: (B,) indices of the images.
            shrink: side of a square in pixels, at least 1.

        Returns:
            Floats in [0, 1], equal to `F.avg_pool2d` of the whole image.
        """

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of images at indices (B, K, C, side // shrink, side // shrink).

        Args:
            numbers: (B,) indices of the images.
            corners_px: (B, K, 2) integers (x, y), the first pixel of each square; pixels outside
                the image are black.
            side: side of the squares in pixels of the image, a multiple of `shrink`.
            shrink: each pixel returned is the mean of a square of this side.

        Returns:
            Floats in [0, 1].
        """


class SomeImages:
    """A selection of large images (`LargeImages`), which are read on demand.

    Args:
        images: all images.
        chosen: (M,) indices of the selection, in its order.
    """

    def __init__(self, images: LargeImages, chosen: Tensor):
        self.images, self.chosen = images, chosen

    @property
    def size(self) -> Size:
        """Height and width of each image in pixels."""
        return self.images.size

    def __len__(self) -> int:
        return len(self.chosen)

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        """Return the means of squares of images at indices (B, C, H // shrink, W // shrink)."""
        return self.images.thumbnails(self.chosen[numbers], shrink)

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares of images at indices (B, K, C, side // shrink, side // shrink)."""
        return self.images.crops(self.chosen[numbers], corners_px, side, shrink)


def selected(images: Any, indices: Tensor) -> Any:
    """Return the images at indices (M,) of a tensor, photographs or large images."""
    return SomeImages(images, indices) if isinstance(images, LargeImages) else images[indices]


class View(Protocol):
    """A batch of images as a model reads them: normalised and on its device.

    Attributes:
        in_part: whether reading all pixels costs much more than reading some.
    """

    in_part: bool

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""

    def whole(self) -> Tensor:
        """Return all pixels of the images (B, C, H, W)."""

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the means (B, C, H // shrink, W // shrink) of squares with side `shrink`."""

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares (B, K, C, side // shrink, side // shrink) from corners (B, K, 2)."""

    def patches(self, keypoints: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return the whole-pixel patches nearest to keypoints, and where they were cut.

        Args:
            keypoints: (B, K, 2) in grid units.
            side: side P of a patch in pixels.

        Returns:
            Patches (B, K, C, P, P), and their keypoints (B, K, 2).

        Raises:
            UserError: the images are smaller than a patch.
        """

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches (B, K, C, P, P) of bilinear samples around keypoints.

        Args:
            keypoints: (B, K, 2) in grid units.
            side: side P of a patch in samples.
            scales: (B, K) pixels from one sample to the next.
        """


class PartView:
    """A batch of large images, normalised when they are read.

    Args:
        images: large images.
        numbers: (B,) indices of the batch.
        mean: (1, C, 1, 1), subtracted; its device is that of the view.
        std: (1, C, 1, 1), divided by.
    """

    in_part = True

    def __init__(self, images: LargeImages, numbers: Tensor, mean: Tensor, std: Tensor):
        self.images, self.numbers, self.mean, self.std = images, numbers, mean, std

    @property
    def size(self) -> Size:
        """Height and width of the images in pixels."""
        return self.images.size

    def whole(self) -> Tensor:
        """Return all pixels of the images (B, C, H, W)."""
        return self.thumbnail(1)

    def thumbnail(self, shrink: int) -> Tensor:
        """Return the means (B, C, H // shrink, W // shrink) of squares with side `shrink`."""
        return (self.images.thumbnails(self.numbers, shrink).to(self.mean) - self.mean) / self.std

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares (B, K, C, side // shrink, side // shrink) from corners (B, K, 2)."""
        crops = self.images.crops(self.numbers, corners_px.cpu(), side, shrink)
        return (crops.to(self.mean) - self.mean) / self.std

    def patches(self, keypoints: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Return the whole-pixel patches nearest to keypoints, without a gradient."""
        snapped = snap(keypoints, side, self.size)
        return self.crops(corners_px(snapped, side, self.size), side), snapped

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches (B, K, C, P, P) of bilinear samples around keypoints."""
        return extract_patches(self.whole(), keypoints, side, scales)


class WholeView:
    """Images in memory as one tensor, already normalised.

    Args:
        images: (B, C, H, W).
        black: (1, C, 1, 1), value of pixels outside the images; 0 if not given.
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
        """Return the means (B, C, H // shrink, W // shrink) of squares with side `shrink`."""
        return F.avg_pool2d(self.images, shrink)

    def crops(self, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        """Return squares (B, K, C, side // shrink, side // shrink) from corners (B, K, 2)."""
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
        """Return the whole-pixel patches nearest to keypoints, differentiable in the keypoints."""
        return cut_patches(self.images, keypoints, side)

    def samples(self, keypoints: Tensor, side: int, scales: Tensor) -> Tensor:
        """Return patches (B, K, C, P, P) of bilinear samples around keypoints."""
        return extract_patches(self.images, keypoints, side, scales)


def block_means(crops: Tensor, shrink: int) -> Tensor:
    """Return the means of squares of crops (B, K, C, S, S): (B, K, C, S // shrink, S // shrink)."""
    if shrink == 1:
        return crops
    return F.avg_pool2d(crops.flatten(0, 1), shrink).unflatten(0, crops.shape[:2])
