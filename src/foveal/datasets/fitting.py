"""Images in memory, and their masks, into the size and channels asked for."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.images import ImageSet

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's grey
_AT_ONCE = 1_000  # bounds the images that are floats at a time


def fitted(images: ImageSet, size: tuple[int, int] | None, channels: int | None) -> ImageSet:
    """Return the images resized to (height, width), antialiased, and as grey or colour.

    Masks take the value of the nearest pixel, so that they stay 0 and 255.

    Args:
        images: of any size, grey or colour.
        size: height and width; None keeps theirs.
        channels: 1 or 3; None keeps theirs.
    """
    pixels, masks = images.images, images.masks  # (N, C, H, W), (N, 1, H, W)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = torch.cat([_grey(part) for part in pixels.split(_AT_ONCE)])
    if size is not None and tuple(pixels.shape[-2:]) != size:
        pixels = torch.cat([_resized(part, size) for part in pixels.split(_AT_ONCE)])
    if size is not None and masks is not None and tuple(masks.shape[-2:]) != size:
        masks = F.interpolate(masks, size, mode="nearest-exact")
    if channels == 3:
        pixels = pixels.expand(-1, 3, -1, -1)
    return replace(images, images=pixels, masks=masks)


def _grey(pixels: Tensor) -> Tensor:
    luma = torch.tensor(_LUMA).reshape(1, 3, 1, 1)
    return (pixels * luma).sum(dim=1, keepdim=True).round().to(torch.uint8)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    found = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return found.round().clamp(0, 255).to(torch.uint8)
