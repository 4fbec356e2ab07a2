"""TIFF and BigTIFF: tiles or strips, with or without a pyramid, read one by one."""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foveal.foundation.errors import UserError, missing_extra, one_line
from foveal.images.depth import tiff_bits
from foveal.images.geometry import Size
from foveal.images.pyramids.pyramid import BlockCache, Pyramid, check_block, make_levels
from foveal.images.values import as_fractions

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

NODATA, ORIENTATION, UPRIGHT = 42113, 274, 1
MAXIMUM, DESCRIPTION = 281, 270
INVERTED, BLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # photometric interpretations
JPEGS = (6, 7, 34892, 33003, 33005, 33007)  # compressions whose decoders convert YCbCr to RGB
UNASSOCIATED = 2  # kind of alpha with colours that are not premultiplied


class Tiff(Pyramid):
    """A TIFF file; only the tiles or strips of a box are decoded.

    Rows of an uncompressed image are read separately, even if the whole image is a single
    strip. A missing tile has the file's value for such tiles (`GDAL_NODATA`), or is an error.

    Args:
        path: path of the file.

    Raises:
        UserError: tifffile is not installed, or the file cannot be read in part.
    """

    def __init__(self, path: Path):
        self.file, pages = _open(path)
        try:
            for page in pages:
                _check(page, self.file.filehandle.size)
        except UserError:
            self.file.close()
            raise
        except Exception as error:  # tifffile raises almost anything on impossible tags
            self.file.close()
            raise UserError(f"its tags are damaged: {one_line(error, 120)}") from None
        self.channels = _channels(pages[0])
        self.pages = [page for page in pages if _channels(page) == self.channels]
        sizes = [(page.imagelength, page.imagewidth) for page in self.pages]
        self.levels = make_levels(sizes, [_block(page) for page in self.pages])
        by_size = {(page.imagelength, page.imagewidth): page for page in reversed(self.pages)}
        self.pages = [by_size[level.size] for level in self.levels]
        self.blocks = BlockCache()

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, channels) in [0, 1]."""
        page = self.pages[level]
        high, wide = _block(page)
        box = np.empty((height, width, page.samplesperpixel), dtype=page.dtype)
        for row in range(top // high, -(-(top + height) // high)):
            for column in range(left // wide, -(-(left + width) // wide)):
                decode = partial(self._block, page, row, column)
                block = self.blocks.get((level, row, column), decode)
                y, x = row * high, column * wide
                first, last = max(top, y), min(top + height, y + high)
                begin, end = max(left, x), min(left + width, x + wide)
                part = block[first - y : last - y, begin - x : end - x]
                box[first - top : last - top, begin - left : end - left] = part
        return _colours(box, page)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _block(self, page: "TiffPage", row: int, column: int) -> np.ndarray:
        """Return a tile or strip (height, width, samples), which may reach beyond the image."""
        if _is_contiguous(page):
            return self._rows(page, row)
        high, wide = _block(page)
        down, across = (-(-page.imagelength // high), -(-page.imagewidth // wide))
        separate = page.planarconfig == 2 and page.samplesperpixel > 1
        planes = range(page.samplesperpixel if separate else 1)
        parts = [
            self._segment(page, (plane * down + row) * across + column, (column * wide, row * high))
            for plane in planes
        ]
        return np.concatenate(parts, axis=2)

    def _segment(self, page: "TiffPage", index: int, corner_px: tuple[int, int]) -> np.ndarray:
        count = page.databytecounts[index]
        if not count:
            return _missing_tile(page, corner_px)
        handle = self.file.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(count)
        try:
            if len(data) < count:
                raise UserError("the file is truncated")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                segment = page.decode(data, index, jpegtables=page.jpegtables)[0]
        except Exception as error:  # decoders raise almost anything on broken tiles
            raise UserError(
                f"the pixels at ({corner_px[0]}, {corner_px[1]}) are broken: {one_line(error, 120)}"
            ) from None
        assert segment is not None  # because there are data
        return segment[0]

    def _rows(self, page: "TiffPage", row: int) -> np.ndarray:
        """Return rows of an image whose pixels are uncompressed and contiguous in the file."""
        assert page.dtype is not None  # see `_check`
        high, wide = _block(page)
        rows = min(high, page.imagelength - row * high)
        kind = page.dtype.newbyteorder(page.parent.byteorder)
        length = wide * page.samplesperpixel * kind.itemsize
        handle = self.file.filehandle
        handle.seek(page.dataoffsets[0] + row * high * length)
        data = handle.read(rows * length)
        if len(data) < rows * length:
            raise UserError("the file is truncated")
        return np.frombuffer(data, kind).reshape(rows, wide, -1).astype(page.dtype)


def _open(path: Path) -> tuple["TiffFile", list["TiffPage"]]:
    """Return a file and the pages of its first image, the finest first."""
    try:
        import tifffile
    except ImportError:
        raise missing_extra("tifffile and imagecodecs", "tiff") from None
    try:
        file = tifffile.TiffFile(path)
        series = file.series[0]
        pages = [level.keyframe for level in series.levels]
    except FileNotFoundError:
        raise UserError("the file does not exist") from None
    except OSError as error:
        raise UserError(f"cannot be opened: {error.strerror or error}") from None
    except Exception as error:  # tifffile raises almost anything on broken files
        raise UserError(f"not a TIFF file, or truncated: {one_line(error, 120)}") from None
    if "".join(sorted(series.axes)) not in ("XY", "SXY"):
        file.close()
        raise UserError(
            f"contains a stack of images (axes {series.axes}): store one image per file"
        )
    return file, pages


def _check(page: "TiffPage", length: int) -> None:
    """Raise UserError unless a page can be read in part, and its pixels are all in the file."""
    if page.imagedepth != 1 or page.photometric not in (INVERTED, BLACK, RGB, PALETTE, YCBCR):
        raise UserError(f"unsupported pixels ({page.photometric!s}): store RGB or greyscale")
    if page.photometric == YCBCR and page.compression not in JPEGS:
        raise UserError("YCbCr is supported in JPEG compression only: store RGB")
    if page.tags.valueof(ORIENTATION, UPRIGHT) != UPRIGHT:
        raise UserError("the file is marked as rotated or mirrored: store it upright")
    if page.dtype is None or page.dtype.kind not in "buf":
        raise UserError(f"unsupported pixels of {page.dtype}: store unsigned integers")
    if _channels(page) not in (1, 3):
        raise UserError(f"it has {_channels(page)} channels: store 1 (greyscale) or 3 (colour)")
    check_block(_block(page), page.samplesperpixel, page.dtype.itemsize)
    ends = np.asarray(page.dataoffsets, np.uint64) + np.asarray(page.databytecounts, np.uint64)
    if len(ends) < int(np.prod(page.chunked)):
        raise UserError("its list of tiles is incomplete")
    if int(ends.max(initial=0)) > length:
        raise UserError(
            f"the file is truncated: it has {length:,} bytes, and its pixels end at {ends.max():,}"
        )


def _channels(page: "TiffPage") -> int:
    if page.photometric == PALETTE:
        return 3
    return page.samplesperpixel - len(page.extrasamples)


def _is_contiguous(page: "TiffPage") -> bool:
    complete = sum(page.databytecounts) >= page.nbytes
    return bool(not page.is_tiled and page.is_final and page.planarconfig == 1 and complete)


def _block(page: "TiffPage") -> Size:
    """Return height and width in pixels of the part that is decoded at once."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    rows = min(page.rowsperstrip, page.imagelength)
    if _is_contiguous(page):
        rows = min(page.imagelength, 64)
    return rows, page.imagewidth


def _missing_tile(page: "TiffPage", corner_px: tuple[int, int]) -> np.ndarray:
    if NODATA not in page.tags:
        raise UserError(f"the tile at ({corner_px[0]}, {corner_px[1]}) is missing")
    high, wide = _block(page)
    samples = 1 if page.planarconfig == 2 else page.samplesperpixel
    return np.full((high, wide, samples), page.nodata, dtype=page.dtype)


def _colours(pixels: np.ndarray, page: "TiffPage") -> np.ndarray:
    """Return a page's pixels as floats (height, width, 1 or 3) in [0, 1], on white."""
    if page.photometric == PALETTE:
        assert page.colormap is not None
        return as_fractions(page.colormap[:, pixels[..., 0]].transpose(1, 2, 0), bits=16)
    fractions = as_fractions(pixels, _bits(page)).clip(max=1)
    colours = fractions[..., : _channels(page)]
    if page.photometric == INVERTED:
        colours = 1 - colours
    alpha_kinds = [int(kind) for kind in page.extrasamples]
    if alpha_kinds and alpha_kinds[0] in (1, UNASSOCIATED):
        alpha = fractions[..., _channels(page), None]
        colours = colours * (alpha if alpha_kinds[0] == UNASSOCIATED else 1) + 1 - alpha
    return np.ascontiguousarray(colours)


def _bits(page: "TiffPage") -> int:
    """Return the bits of a page's integers: those declared in the file, or else all."""
    maximum, description = (page.tags.valueof(tag) for tag in (MAXIMUM, DESCRIPTION))
    declared = tiff_bits(page.bitspersample, False, maximum, description)
    return int(page.bitspersample) if declared is None else declared
