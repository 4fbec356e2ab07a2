"""Read one image, whatever it is, as bytes of a known shape; or say why not."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.errors import UserError
from foveal.pixels import MAX_PIXELS, read_pixels, read_sized

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "check_shape",
    "decode",
    "decode_sized",
    "read_image",
    "without_warnings",
]

_JPEG = ("jfif", "jpeg", "jpg")
EXTENSIONS = frozenset(
    f".{kind}"
    for kind in (*_JPEG, "bmp", "gif", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp")
)


Size = int | tuple[int, int]  # the side of a square, or height and width, in pixels


def read_image(
    source: str | Path | bytes,
    *,
    size: Size | None = None,
    channels: int | None = None,
) -> Tensor:
    """Return an image as bytes (C, H, W).

    The first frame of animations is read, EXIF orientation applied, 16-bit and float pixels are
    scaled to 8 bits, and what is transparent is laid over white.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to resize to, antialiased; one number for a square.
        channels: 1 for grey, 3 for colour, None for what the image has.

    Raises:
        UserError: not an image, truncated, or of more than `MAX_PIXELS`; or a wrong `size`.
    """
    shape = check_shape(size, channels)
    with without_warnings():
        return decode(source, shape, channels)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings from the user: what is wrong with an image is said by errors.

    Not for use inside of threads: Python's warning filters are the whole process'.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_shape(size: Size | None, channels: int | None) -> tuple[int, int] | None:
    """Return `size` as (height, width) once it and `channels` are checked.

    Raises:
        UserError: not one or two positive integers, or neither 1 nor 3 channels.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"Expected 1 channel (grey) or 3 (colour), but got {channels!r}.")
    if size is None:
        return None
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    whole = all(isinstance(side, Integral) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise UserError(
            "Expected a size in pixels, (height, width) or one number for a square, but got "
            f"{size!r}."
        )
    return int(sides[0]), int(sides[1])


def decode(
    source: str | Path | bytes,
    size: tuple[int, int] | None,
    channels: int | None,
    coarser: int = 1,
) -> Tensor:
    """Do as `read_image` does, for threads: arguments unchecked, warnings not held back.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to resize to, or None.
        channels: 1, 3 or None.
        coarser: of a JPEG, 2, 4 or 8 decode about the means of squares of that side alone.
    """
    return _channels_first(read_pixels(source, size, channels, coarser=coarser))


def decode_sized(
    source: str | Path | bytes, size: tuple[int, int] | None, channels: int | None
) -> tuple[Tensor, tuple[int, int]]:
    """Return what `decode` does, and the height and width in pixels that the image had before."""
    pixels, before = read_sized(source, size, channels)
    return _channels_first(pixels), before


def _channels_first(pixels: np.ndarray) -> Tensor:
    found = torch.from_numpy(pixels)
    return found[None] if found.ndim == 2 else found.permute(2, 0, 1).contiguous()
