"""Reading of one image as a uint8 tensor of a known shape."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images.decode import MAX_PIXELS, read_header, read_pixels
from foveal.images.decode import read_pictured as read_pictured_pixels
from foveal.images.sizing import ShortSide, Sizing

__all__ = [
    "MAX_PIXELS",
    "DecodedImage",
    "check_shape",
    "decode",
    "read_image",
    "read_noted",
    "read_pictured",
    "upright_size",
    "without_warnings",
]


class DecodedImage(NamedTuple):
    """An image in memory.

    Attributes:
        image: (C, H, W) uint8.
        size: height and width in pixels of the upright image before it was resized.
        note: text of a warning about how the image was read, which messages print after its path;
            or empty.
    """

    image: Tensor
    size: tuple[int, int]
    note: str


Size = int | Sizing  # side of a square, height and width, or the short side, in pixels


def read_image(
    source: str | Path | bytes,
    *,
    size: Size | None = None,
    channels: int | None = None,
) -> Tensor:
    """Return an image as uint8 (C, H, W).

    The first frame of animations is read, EXIF orientation is applied, pixels of more than 8 bits
    are scaled to 8 bits by the range in the file, and transparent pixels are blended with white. If
    the range had to be guessed, a warning reports it.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to which the image is resized with antialiasing, one number for a
            square, or a `ShortSide`; None keeps the image's size.
        channels: 1 for greyscale, 3 for colour, None for those of the image.

    Raises:
        UserError: not an image or not a regular file, truncated, more than `MAX_PIXELS`, or pixels
            that are NaN or infinite; or an invalid `size`.
    """
    decoded = read_noted(source, size=size, channels=channels)
    if decoded.note:
        name = "the image" if isinstance(source, bytes) else printable(source)
        warnings.warn(f"{name}: {decoded.note}", stacklevel=2)
    return decoded.image


def read_noted(
    source: str | Path | bytes,
    *,
    size: Size | None = None,
    channels: int | None = None,
) -> DecodedImage:
    """Return an image read like `read_image` does, but with a note instead of a warning."""
    shape = check_shape(size, channels)
    with without_warnings():
        return decode(Path(source) if isinstance(source, str) else source, shape, channels)


def read_pictured(
    path: Path, *, size: Size | None, channels: int | None, max_side: int
) -> tuple[DecodedImage, Tensor]:
    """Return an image read like `read_noted` does, and a picture of it for display.

    Args:
        path: a path given by the user.
        size: size to which the image, but not the picture, is resized; None keeps its size.
        channels: channels of the image: 1, 3, or None for those of the file.
        max_side: maximum length in pixels of the picture's longer side.

    Returns:
        The image for a model, and the picture, uint8 (C, H, W), with its original colours and
        aspect ratio.
    """
    shape = check_shape(size, channels)
    with without_warnings():
        (pixels, original_size, note), picture = read_pictured_pixels(
            path, shape, channels, max_side
        )
    return DecodedImage(_planes(pixels), original_size, note), _planes(picture)


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width in pixels of the upright image in a file."""
    with without_warnings():
        return read_header(path).size


def _planes(pixels: np.ndarray) -> Tensor:
    """Return pixels (H, W) or (H, W, 3) as (C, H, W)."""
    image = torch.from_numpy(pixels)
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings, because Foveal reports defects of images itself.

    Do not enter it in a thread that runs next to others: Python's warning filters are global to the
    process. Enter it once, around all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_shape(size: Size | None, channels: int | None) -> Sizing | None:
    """Check `size` and `channels`, and return `size` as (height, width), `ShortSide` or None.

    Raises:
        UserError: `size` is not one or two positive integers, or `channels` is neither 1 nor 3.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"Expected 1 channel (greyscale) or 3 (colour), but got {channels!r}.")
    if size is None or isinstance(size, ShortSide):
        return size
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    are_integers = all(isinstance(side, Integral) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not are_integers or min(sides) < 1:
        raise UserError(
            "Expected a size in pixels, (height, width) or one number for a square, but got "
            f"{size!r}."
        )
    height, width = sides
    return int(height), int(width)


def decode(
    source: Path | bytes,
    size: Sizing | None,
    channels: int | None,
    coarser: int = 1,
) -> DecodedImage:
    """Return an image; may be called in threads.

    The arguments are not checked, and Pillow's warnings are not suppressed: callers suppress them
    around all threads (`without_warnings`).

    Args:
        source: a path given by the user, or the bytes of a file; a string is rejected.
        size: size to which the image is resized; None keeps its size.
        channels: 1 for greyscale, 3 for colour, None for those of the image.
        coarser: factor by which the resolution of a JPEG is reduced while it is decoded: with 2, 4
            or 8, each pixel is roughly the mean of a square with that side. Ignored otherwise.
    """
    pixels, original_size, note = read_pixels(source, size, channels, coarser=coarser)
    return DecodedImage(_planes(pixels), original_size, note)
