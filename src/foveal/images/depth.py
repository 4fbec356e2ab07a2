"""Pixels of more than 8 bits -> 8 bits, by the range in their file. Needs no PyTorch.

Integers are scaled by a range that does not depend on the image, which keeps images comparable:
the bits given in the file (a TIFF's BitsPerSample, a MaxSampleValue of 2^n - 1 or OME's
SignificantBits; a PNG's sBIT) unless a pixel exceeds them, and 16 bits otherwise. Floats from 0
to 1 are fractions; other floats are scaled from 0 to 255 or from 0 to 65535, whichever fits.
In all other cases, as with negative pixels, the darkest becomes 0 and the brightest 255. A note
reports each range that had to be guessed.
"""

import re
import struct
from typing import IO

import numpy as np
from PIL import Image, ImageFile

from foveal.foundation.errors import UserError

DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of more than 8 bits
FULL = 2**16 - 1
MAX_DECLARED_BITS = (
    14  # maximum bits declared in a 16-bit file that are trusted to be the real range
)
_BITS, _MAX, _DESCRIPTION, _SIGN = 258, 281, 270, 339  # TIFF's tags


def declared_bits(image: Image.Image) -> int | None:
    """Return the bits per pixel declared in an opened image's file, without a sign, or None.

    16 bits or more in a TIFF are ignored: they are the type in which pixels are stored.
    """
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile) and image.fp:
        return _png_bits(image.fp)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    signed = _first(tags.get(_SIGN)) == 2
    return tiff_bits(
        _first(tags.get(_BITS)), signed, _first(tags.get(_MAX)), tags.get(_DESCRIPTION)
    )


def tiff_bits(bits: object, signed: bool, maximum: object, description: object) -> int | None:
    """Return the bits of a TIFF's integers declared by its tags, without a sign, or None.

    Args:
        bits: BitsPerSample.
        signed: whether SampleFormat is that of signed integers.
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
    stored = bits - signed if isinstance(bits, int) else 16
    return stored if 8 < stored < 16 else None


def to_uint8(pixels: np.ndarray, bits: int | None) -> tuple[np.ndarray, str]:
    """Return deep pixels as uint8, and a note about how they were scaled, or an empty string.

    Args:
        pixels: integers or floats.
        bits: as returned by `declared_bits`.

    Raises:
        UserError: a pixel is NaN or infinite.
    """
    if pixels.size == 0:
        raise UserError("an image without pixels")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():  # minimum and maximum propagate NaN
        raise UserError("it has pixels that are NaN or infinite")
    top, note = _range(low, high, bits, pixels.dtype.kind == "f")
    if top is None:
        values = pixels.astype(np.float64) - low
        return _rescale(values, (high - low) or 1.0), note
    return _rescale(pixels.astype(np.float64), top), note


def _rescale(values: np.ndarray, top: float) -> np.ndarray:
    return np.round(values / top * 255).astype(np.uint8)


def _range(low: float, high: float, bits: int | None, floats: bool) -> tuple[float | None, str]:
    """Return the value that becomes 255 (None: stretch the image's range), and a note."""
    if low < 0 or high > FULL:
        return None, (
            f"its pixels from {low:g} to {high:g} were stretched to 0 to 255, and are not "
            "comparable with other images"
        )
    if floats:
        if high <= 1:
            return 1.0, ""
        top = 255.0 if high <= 255 else float(FULL)
        return top, f"its float pixels reach {high:g}; a range of 0 to {top:g} is assumed"
    top = FULL if bits is None or high >= 2**bits else 2**bits - 1
    stored = bits is None or bits > MAX_DECLARED_BITS  # only the type in which pixels are stored
    return float(top), dim_note(low, high, top) if stored else ""


def dim_note(low: float, high: float, top: int = FULL) -> str:
    """Return a note if pixels differ but use less than a quarter of their range, else ""."""
    if high == low or high > top / 4:
        return ""
    bits = max(8, int(high).bit_length())
    return (
        f"its pixels reach {high:,.0f} of {top:,}, which leaves {high / top * 255 + 1:.0f} of 256 "
        f"levels. If they have {bits} bits, scale them to 16, or set the bits in the file (TIFF's "
        "MaxSampleValue, PNG's sBIT)"
    )


def _first(value: object) -> object:
    return value[0] if isinstance(value, tuple) and value else value


def _png_bits(file: IO[bytes]) -> int | None:
    """Return the bits in the sBIT chunk of an opened PNG, or None."""
    position = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT" and length:
                bits = file.read(1)[0]
                return bits if 8 < bits < 16 else None
            if kind in (b"IDAT", b"IEND"):
                break
            file.seek(length + 4, 1)
    finally:
        file.seek(position)
    return None
