"""The bytes of an image file -> pixels of a known shape; or why not. Needs no PyTorch."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from foveal.errors import UserError

MAX_PIXELS = 100_000_000  # decoded, 300 MB of colour; more is taken for a decompression bomb
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA = ("LA", "PA", "RGBA", "RGBa")


def read_pixels(
    source: str | Path | bytes,
    size: tuple[int, int] | None,
    channels: int | None,
    *,
    crop: bool = False,
    coarser: int = 1,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Return an image as bytes (H, W), or (H, W, 3) where it is one of colour.

    The first frame of animations is read, EXIF orientation applied, 16-bit and float pixels are
    scaled to 8 bits, and what is transparent is laid over white. Nothing is decoded before its
    header has told how large it is.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to resize to, antialiased; None keeps the image's.
        channels: 1 for grey, 3 for colour, None for what the image has.
        crop: cut the middle out instead of squeezing an image of another shape into `size`.
        coarser: of a JPEG, 2, 4 or 8 decode about the means of squares of that side alone.
        max_pixels: that an image may have.
        formats: names of Pillow's formats that are tried; all if not given.

    Raises:
        UserError: not an image, truncated, or of more than `max_pixels`.
    """
    with _opened(source, max_pixels, formats) as image:
        if coarser > 1:
            image.draft(None, (image.width // coarser, image.height // coarser))
        return _decode(image, size, channels, crop)[0]


def read_sized(
    source: str | Path | bytes, size: tuple[int, int] | None, channels: int | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return what `read_pixels` does, and the height and width that the image had before."""
    with _opened(source, MAX_PIXELS, None) as image:
        return _decode(image, size, channels, crop=False)


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    size: tuple[int, int]  # height and width in pixels, once it is upright
    channels: int  # 1 or 3, as it is read
    jpeg: bool  # can be decoded coarsely


def read_header(path: Path) -> Header:
    """Return what an image file says of itself; warnings are not held back.

    Raises:
        UserError: not an image, or of more than `MAX_PIXELS`.
    """
    with _opened(path, MAX_PIXELS, None) as image:
        grey = image.mode in ("1", "L", "LA", *_DEEP)
        orientation = _orientation(image)
        # Turned or mirrored, a square that is not whole comes to lie first.
        whole = orientation == 1 or image.width % 8 == image.height % 8 == 0
        jpeg = whole and image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        return Header(_upright(image), 1 if grey else 3, jpeg)


@contextmanager
def _opened(
    source: str | Path | bytes, max_pixels: int, formats: tuple[str, ...] | None
) -> Iterator[Image.Image]:
    """Open an image of bounded size; whatever goes wrong with it is a UserError."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        with Image.open(file, formats=formats) as image:
            _check_size(image, max_pixels)
            yield image
    except FileNotFoundError:
        raise UserError("there is no such file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot be opened: {error.strerror}") from None
    except UnidentifiedImageError:
        empty = isinstance(source, bytes) and not source
        if not isinstance(source, bytes):
            empty = Path(source).is_file() and Path(source).stat().st_size == 0
        raise UserError("the file is empty" if empty else _not_read(formats)) from None
    except Image.DecompressionBombError:
        raise UserError(f"more than {max_pixels:,} pixels") from None
    except UserError:
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"broken image: {reason}") from None


def _not_read(formats: tuple[str, ...] | None) -> str:
    return f"not an image of {', '.join(formats)}" if formats else "not an image that Pillow reads"


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{image.width}x{image.height} is more than {max_pixels:,} pixels: not decoded"
        )


def _decode(
    image: Image.Image, size: tuple[int, int] | None, channels: int | None, crop: bool
) -> tuple[np.ndarray, tuple[int, int]]:
    image.seek(0)
    before = _upright(image)
    if size is not None:  # a JPEG is decoded to no more than it takes: 20 megapixels are 60 MB
        image.draft(None, (2 * max(size), 2 * max(size)))
    image.load()
    image = ImageOps.exif_transpose(image)
    image = _eight_bits(image)
    if channels is None:
        channels = 1 if image.mode == "L" else 3
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and (image.height, image.width) != size:
        wanted = (size[1], size[0])
        if crop:
            image = ImageOps.fit(image, wanted, Image.Resampling.BILINEAR)
        else:
            image = image.resize(wanted, Image.Resampling.BILINEAR)
    return np.array(image, dtype=np.uint8), before


def _orientation(image: Image.Image) -> int:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def _upright(image: Image.Image) -> tuple[int, int]:
    """Return height and width in pixels, once the image is turned as its EXIF data say."""
    turned = _orientation(image) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the image as grey (`L`) or colour (`RGB`)."""
    if image.mode in _DEEP:
        return Image.fromarray(_scaled(np.asarray(image), image.mode))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _ALPHA or "transparency" in image.info:
        grey = image.mode in ("L", "LA")
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        flat = Image.alpha_composite(white, over)
        return flat.convert("L" if grey else "RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _scaled(pixels: np.ndarray, mode: str) -> np.ndarray:
    """Return deep pixels as bytes: 16 bits by their full range, others by what they hold.

    32-bit whole numbers from 0 to 65535 are taken for 16 bits, floats from 0 to 1 for shares;
    beyond that, the darkest pixel becomes 0 and the brightest 255.
    """
    values = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    full = 1.0 if mode == "F" else 65535.0
    if low >= 0 and high <= full:
        low, high = 0.0, full
    elif high == low:
        high = low + 1
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)
