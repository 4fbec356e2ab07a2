"""Read one image, whatever it is, as uint8 of a known shape; or say why not."""

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
from foveal.images.decode import read_pictured as pixels_pictured
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
        size: height and width in pixels that it had before it was resized.
        note: what a user should know of how it was read, in words that follow its path; or empty.
    """

    image: Tensor
    size: tuple[int, int]
    note: str


Size = int | Sizing  # the side of a square, height and width, or the short side, in pixels


def read_image(
    source: str | Path | bytes,
    *,
    size: Size | None = None,
    channels: int | None = None,
) -> Tensor:
    """Return an image as uint8 (C, H, W).

    The first frame of animations is read, EXIF orientation applied, pixels of more than 8 bits are
    scaled to 8 by the range that the file gives, and what is transparent is laid over white. Where
    the range had to be guessed, a warning names it.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to resize to, antialiased; one number for a square.
        channels: 1 for grey, 3 for colour, None for what the image has.

    Raises:
        UserError: not an image or no regular file, truncated, of more than `MAX_PIXELS`, or with
            pixels that are NaN or infinite; or a wrong `size`.
    """
    found = read_noted(source, size=size, channels=channels)
    if found.note:
        name = "the image" if isinstance(source, bytes) else printable(source)
        warnings.warn(f"{name}: {found.note}", stacklevel=2)
    return found.image


def read_noted(
    source: str | Path | bytes,
    *,
    size: Size | None = None,
    channels: int | None = None,
) -> DecodedImage:
    """Do as `read_image` does, with a note in place of the warning."""
    shape = check_shape(size, channels)
    with without_warnings():
        return decode(Path(source) if isinstance(source, str) else source, shape, channels)


def read_pictured(
    path: Path, *, size: Size | None, channels: int | None, longest: int
) -> tuple[DecodedImage, Tensor]:
    """Do as `read_noted` does, and return beside it the image for people to see.

    Args:
        path: of the user's.
        size: what the first is resized to, or None.
        channels: of the first, 1, 3 or None.
        longest: pixels along the longer side of the second; a larger image is shrunk to it.

    Returns:
        The image as a model takes it, and (C, H, W) uint8 in its own colours and proportions.
    """
    shape = check_shape(size, channels)
    with without_warnings():
        (pixels, before, note), picture = pixels_pictured(path, shape, channels, longest)
    return DecodedImage(_planes(pixels), before, note), _planes(picture)


def upright_size(path: Path) -> tuple[int, int]:
    """Return height and width in pixels of an image file, once it is upright."""
    with without_warnings():
        return read_header(path).size


def _planes(pixels: np.ndarray) -> Tensor:
    """Return pixels (H, W) or (H, W, 3) as (C, H, W)."""
    image = torch.from_numpy(pixels)
    return image[None] if image.ndim == 2 else image.permute(2, 0, 1).contiguous()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings from the user: what is wrong with an image is said by errors.

    Not for use inside of threads: Python's warning filters are the whole process'.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_shape(size: Size | None, channels: int | None) -> Sizing | None:
    """Return `size` as (height, width), or a `ShortSide`, once it and `channels` are checked.

    Raises:
        UserError: not one or two positive integers, or neither 1 nor 3 channels.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"Expected 1 channel (grey) or 3 (colour), but got {channels!r}.")
    if size is None or isinstance(size, ShortSide):
        return size
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    whole = all(isinstance(side, Integral) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
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
    """Do as `read_noted` does, for threads: arguments unchecked, warnings not held back.

    Args:
        source: a path of the user's, or the bytes of a file; text is refused.
        size: what to resize to, or None.
        channels: 1, 3 or None.
        coarser: of a JPEG, 2, 4 or 8 decode about the means of squares of that side alone.
    """
    pixels, before, note = read_pixels(source, size, channels, coarser=coarser)
    return DecodedImage(_planes(pixels), before, note)
