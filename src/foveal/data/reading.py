"""Read one image, whatever it is, as bytes of a known shape; or say why not."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from foveal.errors import UserError

MAX_PIXELS = 100_000_000  # decoded, 300 MB of colour; more is taken for a decompression bomb
_JPEG = ("jfif", "jpeg", "jpg")
EXTENSIONS = frozenset(
    f".{kind}"
    for kind in (*_JPEG, "bmp", "gif", "pbm", "pgm", "png", "pnm", "ppm", "tif", "tiff", "webp")
)
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ALPHA = ("LA", "PA", "RGBA", "RGBa")


def read_image(
    source: str | Path | bytes,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> Tensor:
    """Return an image as bytes (C, H, W).

    The first frame of animations is read, EXIF orientation applied, 16-bit and float pixels are
    scaled to 8 bits, and what is transparent is laid over white.

    Args:
        source: a path, or the bytes of a file.
        size: height and width to resize to, antialiased.
        channels: 1 for grey, 3 for colour, None for what the image has.

    Raises:
        UserError: not an image, truncated, or of more than `MAX_PIXELS`; or a wrong `size`.
    """
    size = check_shape(size, channels)
    with without_warnings():
        return decode(source, size, channels)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep Pillow's warnings from the user: what is wrong with an image is said by errors.

    Not for use inside of threads: Python's warning filters are the whole process'.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_shape(size: tuple[int, int] | None, channels: int | None) -> tuple[int, int] | None:
    """Return `size` as a tuple once it and `channels` are checked.

    Raises:
        UserError: not two positive whole numbers, or neither 1 nor 3 channels.
    """
    if channels not in (None, 1, 3):
        raise UserError(f"Expected 1 channel (grey) or 3 (colour), but got {channels!r}.")
    if size is None:
        return None
    sides = tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"Expected a size of (height, width) in pixels, but got {size!r}.")
    return sides[0], sides[1]


def decode(
    source: str | Path | bytes, size: tuple[int, int] | None, channels: int | None
) -> Tensor:
    """Do as `read_image` does, for threads: arguments unchecked, warnings not held back."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        with Image.open(file) as image:
            _check_size(image)
            return _decode(image, size, channels)
    except FileNotFoundError:
        raise UserError("there is no such file") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"cannot be opened: {error.strerror}") from None
    except UnidentifiedImageError:
        empty = isinstance(source, bytes) and not source
        if not isinstance(source, bytes):
            empty = Path(source).is_file() and Path(source).stat().st_size == 0
        raise UserError(
            "the file is empty" if empty else "not an image that Pillow reads"
        ) from None
    except Image.DecompressionBombError:
        raise UserError(f"more than {MAX_PIXELS:,} pixels") from None
    except UserError:
        raise
    except Exception as error:  # decoders raise almost anything on broken files
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"broken image: {reason}") from None


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{image.width}x{image.height} is more than {MAX_PIXELS:,} pixels: not decoded"
        )


def _decode(image: Image.Image, size: tuple[int, int] | None, channels: int | None) -> Tensor:
    image.seek(0)
    if size is not None:  # a JPEG is decoded to no more than it takes: 20 megapixels are 60 MB
        image.draft(None, (2 * max(size), 2 * max(size)))
    image.load()
    image = ImageOps.exif_transpose(image)
    image = _eight_bits(image)
    if channels is None:
        channels = 1 if image.mode == "L" else 3
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and (image.height, image.width) != size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


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
