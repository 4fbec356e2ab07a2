"""Reading of one image as uint8 of a known shape, with an error for unreadable ones."""

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
        size: height and width in pixels before it was resized.
        note: warning about how it was read, a phrase to follow its path; or empty.
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
        size: height and width to resize to, antialiased; one number for a square.
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
    """Return an image as `read_image` does, with a note instead of the warning."""
    shape = check_shape(size, channels)
    with without_warnings():
        return decode(Path(source) if isinstance(source, str) else source, shape, channels)


def read_pictured(
    path: Path, *, size: Size | None, channels: int | None, longest: int
) -> tuple[DecodedImage, Tensor]:
    """Return an image as `read_noted` does, and a picture of it for display.

    Args:
        path: a path given by the user.
        size: size that the image is resized to, or None.
        channels: channels of the image, 1, 3 or None.
        longest: maximum length in pixels of the picture's longer side.

    Returns:
        The image for a model, and (C, H, W) uint8 in its original colours and proportions.
    """
    shape = check_shape(size, channels)
    with without_warnings():
        (pixels, original_size, note), picture = read_pictured_pixels(
            path, shape, channels, longest
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
    """Suppress Pillow's warnings; defects of images are reported by errors.

    Do not use it in a thread: Python's warning filters are global to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_shape(size: Size | None, channels: int | None) -> Sizing | None:
    """Check `size` and `channels`; return `size` as (height, width) or a `ShortSide`.

    Raises:
        UserError: not one or two positive integers, or not 1 or 3 channels.
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
    return int(sides[0]), int(sides[1])


def decode(
    source: Path | bytes,
    size: Sizing | None,
    channels: int | None,
    coarser: int = 1,
) -> DecodedImage:
    """Return an image as `read_noted` does, for threads: nothing is checked or suppressed.

    Args:
        source: a path given by the user, or the bytes of a file; a string is rejected.
        size: size to resize to, or None.
        channels: 1, 3 or None.
        coarser: 2, 4 or 8 decodes a JPEG to roughly the means of squares of that side.
    """
    pixels, original_size, note = read_pixels(source, size, channels, coarser=coarser)
    return DecodedImage(_planes(pixels), original_size, note)
