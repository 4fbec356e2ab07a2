"""Resizing and colour conversion of images in memory and of their masks."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.images import ImageSet

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to grey
_CHUNK = 1_000  # number of images converted to floats at a time, which bounds the memory


def fit_images(images: ImageSet, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    """Return the images resized with antialiasing and converted to grey or colour.

    Masks are resized by taking the nearest pixel, so that their values remain 0 and 255.

    Args:
        images: grey or colour images of one size.
        size: height and width; None keeps the original size.
        channels: 1 or 3; None keeps the original channels.
    """
    pixels, masks = images.images, images.masks  # (N, C, H, W), (N, 1, H, W)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = torch.cat([_grey(part) for part in pixels.split(_CHUNK)])
    if size is not None and tuple(pixels.shape[-2:]) != size:
        pixels = torch.cat([_resize(part, size) for part in pixels.split(_CHUNK)])
    if size is not None and masks is not None and tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks, size, mode="nearest-exact")
    if channels == 3:
        pixels = pixels.expand(-1, 3, -1, -1)
    return replace(images, images=pixels, masks=masks)


def _grey(pixels: Tensor) -> Tensor:
    """Return colour images (N, 3, H, W) as grey images (N, 1, H, W), uint8."""
    luma = torch.tensor(_LUMA).reshape(1, 3, 1, 1)
    return (pixels * luma).sum(dim=1, keepdim=True).round().to(torch.uint8)


def _resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (N, C, H, W) resized with antialiasing, uint8."""
    resized = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
