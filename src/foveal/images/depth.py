"""Conversion of deep pixels, which have more than 8 bits, to 8 bits. Needs no PyTorch.

Integers are scaled by a range that does not depend on the pixels of the image, so that images stay
comparable. The file declares its number of bits (in a TIFF's BitsPerSample, a MaxSampleValue of
2^n - 1 or OME's SignificantBits; in a PNG's sBIT); if it does not, or if a pixel exceeds them, the
range is 16 bits. Floats from 0 to 1 are fractions of white; other floats are scaled from 0 to 255,
or from 0 to 65535 if they exceed 255. In all other cases, such as negative pixels, the darkest
pixel becomes 0 and the brightest 255. A note reports each range that had to be guessed.
"""

import re
import struct
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from foveal.foundation.errors import UserError

DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits
MAX_16_BIT = 2**16 - 1
# A larger number of declared bits is used, but the user is warned if all pixels are dark: it may
# only describe the type in which the pixels are stored.
MAX_DECLARED_BITS = 14
_BITS, _MAX, _DESCRIPTION, _SAMPLE_FORMAT = 258, 281, 270, 339  # TIFF's tags
_SIGNED = 2  # SampleFormat of signed integers


def declared_bits(image: Image.Image) -> int | None:
    """Return the bits per pixel that an image's file declares, without a sign bit, or None.

    A TIFF's declaration of 16 bits or more is ignored, because it only describes the type in which
    the pixels are stored.

    Args:
        image: an opened image that has not been decoded.
    """
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile) and image.fp:
        return _png_bits(image.fp)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    is_signed = _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED
    return tiff_bits(
        _first(tags.get(_BITS)), is_signed, _first(tags.get(_MAX)), tags.get(_DESCRIPTION)
    )


def tiff_bits(bits: object, is_signed: bool, maximum: object, description: object) -> int | None:
    """Return the bits per integer that a TIFF's tags declare, without a sign bit, or None.

    Args:
        bits: BitsPerSample.
        is_signed: whether SampleFormat is that of signed integers.
        maximum: MaxSampleValue, used if it is 2^n - 1; other values are specific to one image.
        description: ImageDescription, in which OME-TIFF stores SignificantBits.
    """
    if isinstance(bits, int) and bits > 16:
        return None
    match = re.search(r'SignificantBits="(\d{1,2})"', str(description))
    if match and 8 < int(match[1]) < 16:
        return int(match[1])
    if isinstance(maximum, int) and maximum.bit_length() in range(9, 16):
        length = maximum.bit_length()
        if maximum == 2**length - 1:
            return length
    unsigned_bits = bits - int(is_signed) if isinstance(bits, int) else 16
    return unsigned_bits if 8 < unsigned_bits < 16 else None


def to_uint8(pixels: np.ndarray, bits: int | None) -> tuple[np.ndarray, str]:
    """Return deep pixels as uint8, and a note about how they were scaled, or an empty string.

    Args:
        pixels: integers or floats.
        bits: number of bits that the file declares, from `declared_bits`, or None.

    Raises:
        UserError: a pixel is NaN or infinite.
    """
    if pixels.size == 0:
        raise UserError("an image without pixels")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():  # minimum and maximum propagate NaN
        raise UserError("it has pixels that are NaN or infinite")
    top, note = _white_level(low, high, bits, pixels.dtype.kind == "f")
    if top is None:
        values = pixels.astype(np.float64) - low
        return _rescale(values, (high - low) or 1.0), note
    return _rescale(pixels.astype(np.float64), top), note


def _rescale(values: np.ndarray, top: float) -> np.ndarray:
    """Return values from 0 to `top` as uint8 from 0 to 255."""
    return np.round(values / top * 255).astype(np.uint8)


def _white_level(
    low: float, high: float, bits: int | None, is_float: bool
) -> tuple[float | None, str]:
    """Return the pixel value that becomes 255, and a note about it, or an empty string.

    The value is None if the image's own range, from `low` to `high`, has to be stretched.
    """
    if low < 0 or high > MAX_16_BIT:
        return None, (
            f"its pixels from {low:g} to {high:g} were stretched to 0 to 255, and are not "
            "comparable with other images"
        )
    if is_float:
        if high <= 1:
            return 1.0, ""
        top = 255.0 if high <= 255 else float(MAX_16_BIT)
        return top, f"its float pixels reach {high:g}; a range of 0 to {top:g} is assumed"
    top = MAX_16_BIT if bits is None or high >= 2**bits else 2**bits - 1
    may_be_smaller = bits is None or bits > MAX_DECLARED_BITS
    return float(top), dim_note(low, high, top) if may_be_smaller else ""


def dim_note(low: float, high: float, top: int = MAX_16_BIT) -> str:
    """Return a note if an image seems too dark, or an empty string.

    It seems too dark if its pixels differ, but all are in the lowest quarter of the range.

    Args:
        low: minimum of all pixels.
        high: maximum of all pixels.
        top: upper end of the range by which they are scaled.
    """
    if high == low or high > top / 4:
        return ""
    bits = max(8, int(high).bit_length())
    return (
        f"its pixels reach {high:,.0f} of {top:,}, which leaves {high / top * 255 + 1:.0f} of 256 "
        f"levels. If they have {bits} bits, scale them to 16, or set the bits in the file (TIFF's "
        "MaxSampleValue, PNG's sBIT)"
    )


def _first(value: object) -> object:
    """Return the value of a TIFF's tag, or that of the first channel if there are several."""
    return value[0] if isinstance(value, tuple) and value else value


def _png_bits(file: IO[bytes]) -> int | None:
    """Return the bits in the sBIT chunk of an opened PNG, or None."""
    position = file.tell()
    try:
        file.seek(8)  # after the signature
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT" and length:
                bits = file.read(1)[0]  # of the first channel
                return bits if 8 < bits < 16 else None
            if kind in (b"IDAT", b"IEND"):
                break
            file.seek(length + 4, 1)  # past the data and the checksum
    finally:
        file.seek(position)
    return None
