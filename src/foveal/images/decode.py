"""Decoding of an image file into pixels of a known shape. Needs no PyTorch.

Only a path that the user gave is passed as a `Path`. A string is never interpreted as a path: it
may come from a dataset, which could otherwise make Foveal read any of the user's files.

An upright image is one that has been rotated and mirrored as its EXIF orientation requires. Deep
pixels have values of more than 8 bits.
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
from foveal.images.formats import HEAD_BYTES, readable_formats, unreadable_reason
from foveal.images.sizing import ShortSide, Sizing, size_for

# Larger images are rejected as decompression bombs; an image of this size takes 300 MB in colour.
MAX_PIXELS = 100_000_000
MAX_BYTES = 2**30  # maximum size of a file
_BILINEAR, _BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
GREY = ("1", "L", "LA", *DEEP)  # Pillow's modes that are read as greyscale
_ALPHA = ("LA", "PA", "RGBA", "RGBa")  # Pillow's modes with transparency
_TRANSPOSES = {  # EXIF orientation -> operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_SIDEWAYS = 5  # EXIF orientations from this one swap width and height
_TO_16_BITS = 257  # factor from 8 to 16 bits: 255 * 257 = 65535

# Receives the upright (height, width) of an image; returns the minimum to which a JPEG is decoded.
_MinSizeFunction = Callable[[tuple[int, int]], tuple[int, int] | None]


class Pixels(NamedTuple):
    """A decoded image.

    Attributes:
        values: uint8 (H, W) or (H, W, 3).
        size: height and width in pixels of the upright image before it was resized.
        note: text of a warning about how the image was read, which messages print after its path;
            or empty.
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
        size: size to which the image is resized with antialiasing; None keeps its size.
        channels: 1 for greyscale, 3 for colour, None for those of the image.
        crop: crop the centre of an image with another aspect ratio instead of distorting it.
        coarser: factor by which the resolution of a JPEG is reduced while it is decoded: with 2, 4
            or 8, each pixel is roughly the mean of a square with that side. Ignored otherwise.
        max_pixels: maximum number of pixels of an image.
        formats: Pillow's names of the formats to try; None for all of `formats.readable_formats`.

    Raises:
        UserError: not an image or not a regular file, truncated, more than `max_pixels`, or pixels
            that are NaN or infinite.
    """
    with _open_image(source, max_pixels, formats, read_all=True) as image:
        if coarser > 1:
            image.draft(None, (image.width // coarser, image.height // coarser))
        return _resize(_decode(image, _min_size_for(size)), size, channels, crop)


def read_pictured(
    source: Path, size: Sizing | None, channels: int | None, max_side: int
) -> tuple[Pixels, np.ndarray]:
    """Return an image read like `read_pixels` does, and a picture of it for display.

    The file is decoded once, except that a JPEG is decoded again if the resolution that suffices
    for `size` is too low for the picture.

    Args:
        source: a path given by the user.
        size: size to which the image, but not the picture, is resized; None keeps its size.
        channels: channels of the image: 1, 3, or None for those of the file.
        max_side: maximum length in pixels of the picture's longer side; larger images are reduced
            by averaging pixels.

    Returns:
        The image, and the picture as uint8 (H, W), or (H, W, 3) in colour.

    Raises:
        UserError: as in `read_pixels`.
    """
    with _open_image(source, MAX_PIXELS, None, read_all=True) as image:
        upright = _decode(image, _min_size_for(size))
        pixels = _resize(upright, size, channels)
    target = _bounded_size(max_side, upright.size)
    if upright.image.height < target[0] or upright.image.width < target[1]:
        with _open_image(source, MAX_PIXELS, None, read_all=True) as image:
            upright = _decode(image, lambda file_size: _bounded_size(max_side, file_size))
    picture = upright.image
    if (picture.height, picture.width) != target:
        picture = picture.resize((target[1], target[0]), Image.Resampling.BOX)
    return pixels, np.array(picture, dtype=np.uint8)


def _bounded_size(max_side: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return `size` (H, W) reduced to at most `max_side` pixels per side, at its aspect ratio."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


class Header(NamedTuple):
    """Properties of an image that are known from its file's header, before it is decoded."""

    size: tuple[int, int]  # height and width in pixels of the upright image
    channels: int  # 1 if the image would be read as greyscale, 3 if as colour
    decodes_coarsely: bool  # whether it is a JPEG that can be decoded at lower resolutions


def read_header(path: Path) -> Header:
    """Return the header of an image file.

    Pillow may issue warnings, which callers suppress with `reading.without_warnings`.

    Raises:
        UserError: not an image or not a regular file, or more than `MAX_PIXELS`.
    """
    with _open_image(path, MAX_PIXELS, None, read_all=False) as image:
        orientation = _orientation(image)
        # A coarsely decoded JPEG has one pixel for each square of up to 8 x 8 pixels. The last
        # squares extend beyond the image unless its sides are multiples of 8. Rotation or mirroring
        # would move them to the start of a row or column, and shift all squares after them.
        has_aligned_squares = orientation == 1 or image.width % 8 == image.height % 8 == 0
        is_jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        channels = 1 if image.mode in GREY else 3
        return Header(_upright_size(image), channels, has_aligned_squares and is_jpeg)


@contextmanager
def _open_image(
    source: Path | bytes, max_pixels: int, formats: tuple[str, ...] | None, *, read_all: bool
) -> Iterator[Image.Image]:
    """Open an image of bounded size; exceptions while it is opened or used become UserErrors.

    Args:
        source: a path, or the bytes of a file.
        max_pixels: maximum number of its pixels.
        formats: Pillow's names of the formats to try, or None for all readable formats.
        read_all: whether to read the whole file, because it will be decoded, or only its header.
    """
    try:
        with _open_stream(source, read_all) as file:
            try:
                with Image.open(file, formats=formats or readable_formats()) as image:
                    _check_size(image, max_pixels)
                    yield image
            except UnidentifiedImageError:
                file.seek(0)
                raise UserError(_rejection_reason(file.read(HEAD_BYTES), formats)) from None
    except FileNotFoundError:
        raise UserError("the file does not exist") from None
    except Image.DecompressionBombError:
        raise UserError(f"more than {max_pixels:,} pixels") from None
    except UserError:
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        raise UserError(f"broken image: {one_line(error, 120)}") from None


def _open_stream(source: Path | bytes, read_all: bool) -> BinaryIO:
    """Open the bytes of an image file, in memory if all of them are needed.

    Raises:
        UserError: neither a `Path` nor bytes, not a regular file, or it cannot be opened.
        FileNotFoundError: the file does not exist.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        raise UserError(f"expected the bytes of an image, but got {type(source).__name__}")
    try:
        return io.BytesIO(read_bytes(source, MAX_BYTES)) if read_all else open_regular(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"cannot be opened: {error.strerror or error}") from None


def _rejection_reason(head: bytes, formats: tuple[str, ...] | None) -> str:
    """Return why Pillow did not recognise a file that begins with the bytes `head`."""
    if not head:
        return "the file is empty"
    return f"not an image of {', '.join(formats)}" if formats else unreadable_reason(head)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{image.width}x{image.height} is more than {max_pixels:,} pixels: not decoded"
        )


class _UprightImage(NamedTuple):
    """An image after it was decoded and turned upright, and before it is resized."""

    image: Image.Image  # greyscale (`L`) or colour (`RGB`)
    size: tuple[int, int]  # height and width of the image in the file, not as decoded
    note: str


def _decode(image: Image.Image, min_size_of: _MinSizeFunction) -> _UprightImage:
    """Decode an opened image and turn it upright.

    Args:
        image: an opened image.
        min_size_of: receives the upright height and width, and returns the minimum size to which a
            JPEG may be decoded, or None for its full size.
    """
    image.seek(0)
    # Reading the orientation decodes a PNG, which discards the following two.
    bits = declared_bits(image) if image.mode in DEEP else None
    # Raw modes such as `RGB;16B` have 16 bits per channel, of which Pillow keeps the upper 8.
    upper_bits_only = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    size, orientation = _upright_size(image), _orientation(image)
    target = min_size_of(size)
    if target is not None:
        is_sideways = orientation >= _FIRST_SIDEWAYS
        # `draft` expects (width, height) before rotation.
        image.draft(None, target if is_sideways else target[::-1])
    image, note = _to_8_bits(image, bits, upper_bits_only)
    if orientation != 1:
        image = image.transpose(_TRANSPOSES[orientation])
    return _UprightImage(image, size, note)


def _min_size_for(sizing: Sizing | None) -> _MinSizeFunction:
    """Return a function that limits how coarsely a JPEG is decoded before it is resized.

    The decoded image keeps at least twice the resolution of the result. Coarse decoding saves 60 MB
    of memory for a photograph of 20 megapixels.
    """

    def min_size_of(file_size: tuple[int, int]) -> tuple[int, int] | None:
        if sizing is None:
            return None
        side = 2 * max(size_for(sizing, file_size))
        return side, side

    return min_size_of


def _resize(
    upright: _UprightImage, sizing: Sizing | None, channels: int | None, crop: bool = False
) -> Pixels:
    """Return an upright image with the given size and channels; arguments as in `read_pixels`."""
    image = upright.image
    if channels is None:
        channels = 1 if image.mode == "L" else 3
    image = image.convert("L" if channels == 1 else "RGB")
    new_size = None if sizing is None else size_for(sizing, upright.size)
    if new_size is not None and (image.height, image.width) != new_size:
        height, width = new_size
        if crop:
            image = ImageOps.fit(image, (width, height), _BILINEAR)
        else:
            # Models of photographs (`ShortSide`) use pretrained backbones, which were trained on
            # images that were resized bicubically, and are most accurate on such images.
            is_bicubic = isinstance(sizing, ShortSide)
            image = image.resize((width, height), _BICUBIC if is_bicubic else _BILINEAR)
    return Pixels(np.array(image, dtype=np.uint8), upright.size, upright.note)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, from 1 to 8.

    It is 1, which means upright, if the EXIF data are missing, broken or have another value.
    """
    if image.format == "TIFF":  # Pillow rotates TIFFs and reports the rotated size
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return next((key for key in _TRANSPOSES if key == orientation), 1)
    except Exception:  # readers of EXIF raise almost anything
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width in pixels after rotation by the EXIF orientation."""
    is_sideways = _orientation(image) >= _FIRST_SIDEWAYS
    return (image.width, image.height) if is_sideways else (image.height, image.width)


def _to_8_bits(
    image: Image.Image, bits: int | None, upper_bits_only: bool
) -> tuple[Image.Image, str]:
    """Return an image as greyscale (`L`) or colour (`RGB`), and a note for the user, or "".

    Args:
        image: an opened or decoded image.
        bits: number of bits of deep pixels that the file declares, or None.
        upper_bits_only: whether Pillow keeps only the upper 8 of 16 bits.
    """
    if image.mode in DEEP:
        values, note = to_uint8(np.asarray(image), bits)
        return Image.fromarray(values), note
    image.load()
    note = _dim_colours_note(image) if upper_bits_only else ""
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
    low, high = int(pixels.min()), int(pixels.max())
    return dim_note(low * _TO_16_BITS, high * _TO_16_BITS)
