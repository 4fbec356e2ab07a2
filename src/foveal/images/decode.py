"""Decoding of an image file -> pixels of a known shape, or an error. Needs no PyTorch.

Paths given by the user are of type `Path`. A string is never interpreted as a path, because it may
come from a file.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from foveal.foundation.errors import UserError, one_line
from foveal.foundation.files import open_regular, read_bytes
from foveal.images.depth import DEEP, declared_bits, dim_note, to_uint8
from foveal.images.formats import HEAD, readable_formats, unreadable_reason
from foveal.images.sizing import ShortSide, Sizing, size_for

MAX_PIXELS = 100_000_000  # decoded, 300 MB in colour; more is treated as a decompression bomb
MAX_BYTES = 2**30  # of a file
_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
GREY = ("1", "L", "LA", *DEEP)  # Pillow's modes that are read as greyscale
_ALPHA = ("LA", "PA", "RGBA", "RGBa")
_TURNS = {  # EXIF orientation -> operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_MinSize = Callable[[tuple[int, int]], tuple[int, int] | None]


class Pixels(NamedTuple):
    """A decoded image.

    Attributes:
        values: uint8 (H, W) or (H, W, 3).
        size: height and width in pixels of the upright image before it was resized.
        note: warning about how it was read, a phrase to follow its path; or empty.
    """

    values: np.ndarray
    size: tuple[int, int]
    note: str


def read_pixels(
    source: Path | bytes,
    size: Sizing | None,
    channels: int | None,
    *,
    crop: bool = False,
    coarser: int = 1,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> Pixels:
    """Return an image as uint8 (H, W), or (H, W, 3) in colour.

    The first frame of animations is read, EXIF orientation is applied, deep pixels are scaled to 8
    bits (see `depth`), and transparent pixels are blended with white. The size in the header is
    checked before anything is decoded.

    Args:
        source: a path given by the user, or the bytes of a file.
        size: size to resize to, antialiased; None keeps the image's size.
        channels: 1 for greyscale, 3 for colour, None for those of the image.
        crop: crop the centre of an image of other proportions instead of distorting it.
        coarser: 2, 4 or 8 decodes a JPEG to roughly the means of squares of that side.
        max_pixels: maximum number of pixels of an image.
        formats: names of Pillow's formats to try; `formats.readable_formats` if not given.

    Raises:
        UserError: not an image or not a regular file, truncated, more than `max_pixels`, or pixels
            that are NaN or infinite.
    """
    with _open_image(source, max_pixels, formats, whole=True) as image:
        if coarser > 1:
            image.draft(None, (image.width // coarser, image.height // coarser))
        return _resize(_decode(image, _min_size_for(size)), size, channels, crop)


def read_pictured(
    source: Path, size: Sizing | None, channels: int | None, longest: int
) -> tuple[Pixels, np.ndarray]:
    """Return an image as `read_pixels` does, and a picture of it for display.

    It is decoded once, or twice if it is a JPEG that may be decoded more coarsely for `size` than
    for the picture.

    Args:
        source: a path given by the user.
        size: size that the image is resized to, or None.
        channels: channels of the image, 1, 3 or None.
        longest: maximum length in pixels of the picture's longer side; a larger image is
            downsampled by area.

    Returns:
        The image, and the picture as uint8 (H, W), or (H, W, 3) in colour.

    Raises:
        UserError: as in `read_pixels`.
    """
    with _open_image(source, MAX_PIXELS, None, whole=True) as image:
        upright = _decode(image, _min_size_for(size))
        pixels = _resize(upright, size, channels)
    target = _bounded_size(longest, upright.size)
    if upright.image.height < target[0] or upright.image.width < target[1]:
        with _open_image(source, MAX_PIXELS, None, whole=True) as image:
            upright = _decode(image, lambda size: _bounded_size(longest, size))
    picture = upright.image
    if (picture.height, picture.width) != target:
        picture = picture.resize((target[1], target[0]), Image.Resampling.BOX)
    return pixels, np.array(picture, dtype=np.uint8)


def _bounded_size(longest: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width in the same proportions, at most `longest` pixels per side."""
    scale = min(1.0, longest / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


class Header(NamedTuple):
    """Header of an image file, known before it is decoded."""

    size: tuple[int, int]  # height and width in pixels of the upright image
    channels: int  # 1 or 3, as it would be read
    jpeg: bool  # whether it can be decoded coarsely


def read_header(path: Path) -> Header:
    """Return the header of an image file; warnings are not suppressed.

    Raises:
        UserError: not an image or not a regular file, or more than `MAX_PIXELS`.
    """
    with _open_image(path, MAX_PIXELS, None, whole=False) as image:
        orientation = _orientation(image)
        # A rotated or mirrored image may begin with an incomplete square.
        complete = orientation == 1 or image.width % 8 == image.height % 8 == 0
        jpeg = complete and image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        return Header(_upright_size(image), 1 if image.mode in GREY else 3, jpeg)


@contextmanager
def _open_image(
    source: Path | bytes, max_pixels: int, formats: tuple[str, ...] | None, *, whole: bool
) -> Iterator[Image.Image]:
    """Open an image of bounded size; any exception becomes a UserError.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: maximum number of its pixels.
        formats: names of Pillow's formats to try.
        whole: whether to read the whole file, in order to decode it, or only the header.
    """
    try:
        with _open_stream(source, whole) as file:
            try:
                with Image.open(file, formats=formats or readable_formats()) as image:
                    _check_size(image, max_pixels)
                    yield image
            except UnidentifiedImageError:
                file.seek(0)
                raise UserError(_unreadable_reason(file.read(HEAD), formats)) from None
    except FileNotFoundError:
        raise UserError("the file does not exist") from None
    except Image.DecompressionBombError:
        raise UserError(f"more than {max_pixels:,} pixels") from None
    except UserError:
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        raise UserError(f"broken image: {one_line(error, 120)}") from None


def _open_stream(source: Path | bytes, whole: bool) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        raise UserError(f"expected the bytes of an image, but got {type(source).__name__}")
    try:
        return io.BytesIO(read_bytes(source, MAX_BYTES)) if whole else open_regular(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot be opened: {error.strerror or error}") from None


def _unreadable_reason(head: bytes, formats: tuple[str, ...] | None) -> str:
    if not head:
        return "the file is empty"
    return f"not an image of {', '.join(formats)}" if formats else unreadable_reason(head)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{image.width}x{image.height} is more than {max_pixels:,} pixels: not decoded"
        )


class _UprightImage(NamedTuple):
    """An upright image before it is resized."""

    image: Image.Image  # greyscale (`L`) or colour (`RGB`)
    size: tuple[int, int]  # height and width of the image in the file, not as decoded
    note: str


def _decode(image: Image.Image, min_size: _MinSize) -> _UprightImage:
    """Decode an opened image and turn it upright.

    Args:
        image: an opened image.
        min_size: upright height and width -> minimum size to which a JPEG may be decoded, or
            None for its full size.
    """
    image.seek(0)
    # Read first, since Pillow decodes a PNG to get its orientation.
    bits = declared_bits(image) if image.mode in DEEP else None
    halved = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    size, orientation = _upright_size(image), _orientation(image)
    target = min_size(size)
    if target is not None:
        image.draft(None, target if orientation >= 5 else target[::-1])
    image, note = _eight_bits(image, bits, halved)
    if orientation != 1:
        image = image.transpose(_TURNS[orientation])
    return _UprightImage(image, size, note)


def _min_size_for(sizing: Sizing | None) -> _MinSize:
    """Return a JPEG's size -> the minimum size to decode it to; saves 60 MB at 20 MP."""

    def min_size(size: tuple[int, int]) -> tuple[int, int] | None:
        side = None if sizing is None else 2 * max(size_for(sizing, size))
        return None if side is None else (side, side)

    return min_size


def _resize(
    upright: _UprightImage, sizing: Sizing | None, channels: int | None, crop: bool = False
) -> Pixels:
    image = upright.image
    if channels is None:
        channels = 1 if image.mode == "L" else 3
    image = image.convert("L" if channels == 1 else "RGB")
    size = None if sizing is None else size_for(sizing, upright.size)
    if size is not None and (image.height, image.width) != size:
        target = (size[1], size[0])
        if crop:
            image = ImageOps.fit(image, target, _BILINEAR)
        else:
            # Pretrained backbones were trained on bicubic photographs and do best on those.
            bicubic = isinstance(sizing, ShortSide)
            image = image.resize(target, _BICUBIC if bicubic else _BILINEAR)
    return Pixels(np.array(image, dtype=np.uint8), upright.size, upright.note)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, from 1 to 8.

    It is 1, upright, if the EXIF data are broken or have another value.
    """
    if image.format == "TIFF":  # Pillow rotates TIFFs and reports the rotated size
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return next((turn for turn in _TURNS if turn == orientation), 1)
    except Exception:  # readers of EXIF raise almost anything
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width in pixels after rotation by the EXIF orientation."""
    turned = _orientation(image) >= 5
    return (image.width, image.height) if turned else (image.height, image.width)


def _eight_bits(image: Image.Image, bits: int | None, halved: bool) -> tuple[Image.Image, str]:
    """Return an image as greyscale (`L`) or colour (`RGB`), and a note or an empty string.

    Args:
        image: an opened or decoded image.
        bits: bits of deep pixels declared in the file, or None.
        halved: whether Pillow keeps only the upper 8 of 16 bits.
    """
    if image.mode in DEEP:
        values, note = to_uint8(np.asarray(image), bits)
        return Image.fromarray(values), note
    image.load()
    note = _dim_colours_note(image) if halved else ""
    if image.mode == "1":
        return image.convert("L"), note
    if image.mode in _ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        blended = Image.alpha_composite(white, rgba)
        return blended.convert("L" if image.mode in GREY else "RGB"), note
    return image if image.mode == "L" else image.convert("RGB"), note


def _dim_colours_note(image: Image.Image) -> str:
    """Return a note if 16-bit colours, of which Pillow keeps the upper 8 bits, are all dark."""
    pixels = np.asarray(image.convert("RGB"))
    return dim_note(int(pixels.min()) * 257, int(pixels.max()) * 257)
