"""The bytes of an image file -> pixels of a known shape; or why not. Needs no PyTorch."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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
        max_pixels: that an image may have.
        formats: names of Pillow's formats that are tried; all if not given.

    Raises:
        UserError: not an image, truncated, or of more than `max_pixels`.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        with Image.open(file, formats=formats) as image:
            _check_size(image, max_pixels)
            return _decode(image, size, channels, crop)
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
) -> np.ndarray:
    image.seek(0)
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
    return np.array(image, dtype=np.uint8)


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
