"""Read one image, whatever it is, as bytes of a known shape; or say why not."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from foveal.errors import UserError

MAX_PIXELS = 100_000_000  # decoded, 300 MB of colour; more is taken for a decompression bomb
EXTENSIONS = frozenset(
    ".bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


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
        UserError: not an image, truncated, or of more than `MAX_PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
            with Image.open(file) as image:
                _check_size(image)
                return _decode(image, size, channels)
    except FileNotFoundError:
        raise UserError("there is no such file") from None
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
    if channels is not None and image.format == "JPEG" and size is not None:
        image.draft("L" if channels == 1 else "RGB", (size[1], size[0]))
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
        return Image.fromarray(_scaled(np.asarray(image)))
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("L", "LA", "La")
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        flat = Image.alpha_composite(white, over)
        return flat.convert("L" if grey else "RGB")
    return image if image.mode == "L" else image.convert("RGB")


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Return deep pixels as bytes: 16-bit by their full range, others by their own."""
    values = np.nan_to_num(pixels.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if not np.issubdtype(pixels.dtype, np.floating) and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0 if high > 255 else 255.0
    if high <= low:
        high = low + 1
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)
