"""Large images in TIFF and BigTIFF, at one or several resolutions (levels).

A page is one image in the file, here a level. Its blocks, which are tiles or strips, are read one
by one. A segment is the encoded form of a block, or of one colour channel of it.
"""

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

NODATA, ORIENTATION, MAXIMUM, DESCRIPTION = 42113, 274, 281, 270  # numbers of tags
UPRIGHT = 1  # value of the tag ORIENTATION
# Values of the photometric interpretation. INVERTED and BLACK are greyscale: a pixel of 0 is white
# if INVERTED, and black if BLACK.
INVERTED, BLACK, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
INTERLEAVED, SEPARATE = 1, 2  # planar configurations: channels together, or one after the other
JPEGS = (6, 7, 34892, 33003, 33005, 33007)  # compressions whose decoders convert YCbCr to RGB
ASSOCIATED, UNASSOCIATED = 1, 2  # kinds of alpha: colours are multiplied by it, or not
CONTIGUOUS_ROWS = 64  # rows per block of an uncompressed image


class Tiff(Pyramid):
    """A TIFF file; only the tiles or strips of a box are decoded.

    An uncompressed image is read by blocks of rows, even if it is stored as a single strip. The
    pixels of a missing tile have the value that the file gives for them (`GDAL_NODATA`); without
    such a value, a missing tile is an error.

    Args:
        path: path of the file.

    Raises:
        UserError: tifffile is not installed, or single blocks of the file cannot be read.
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
        self.levels = make_levels(sizes, [_block_size(page) for page in self.pages])
        # Of several pages of the same size, only the first is a level. It is the last one here that
        # is stored under its size, because the pages are in reverse order.
        by_size = {(page.imagelength, page.imagewidth): page for page in reversed(self.pages)}
        self.pages = [by_size[level.size] for level in self.levels]
        self.blocks = BlockCache()

    def read(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a box of a level, as floats (height, width, channels) in [0, 1]."""
        page = self.pages[level]
        block_height, block_width = _block_size(page)
        box = np.empty((height, width, page.samplesperpixel), dtype=page.dtype)
        # The rows and columns of the blocks that the box overlaps; -(-a // b) rounds up.
        for row in range(top // block_height, -(-(top + height) // block_height)):
            for column in range(left // block_width, -(-(left + width) // block_width)):
                decode = partial(self._decode_block, page, row, column)
                block = self.blocks.get((level, row, column), decode)
                y, x = row * block_height, column * block_width
                y1, y2 = max(top, y), min(top + height, y + block_height)
                x1, x2 = max(left, x), min(left + width, x + block_width)
                overlap = block[y1 - y : y2 - y, x1 - x : x2 - x]
                box[y1 - top : y2 - top, x1 - left : x2 - left] = overlap
        return _colours(box, page)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _decode_block(self, page: "TiffPage", row: int, column: int) -> np.ndarray:
        """Return a tile or strip (height, width, samples), which may reach beyond the image."""
        if _is_contiguous(page):
            return self._read_rows(page, row)
        height, width = _block_size(page)
        rows = -(-page.imagelength // height)
        columns = -(-page.imagewidth // width)
        has_planes = page.planarconfig == SEPARATE and page.samplesperpixel > 1
        corner_px = (column * width, row * height)
        segments = [
            self._decode_segment(page, (plane * rows + row) * columns + column, corner_px)
            for plane in range(page.samplesperpixel if has_planes else 1)
        ]
        return np.concatenate(segments, axis=2)

    def _decode_segment(
        self, page: "TiffPage", index: int, corner_px: tuple[int, int]
    ) -> np.ndarray:
        """Return the pixels (height, width, samples) of a segment.

        Args:
            page: page that contains the segment.
            index: index of the segment in the page.
            corner_px: x and y of its first pixel, for error messages.
        """
        byte_count = page.databytecounts[index]
        if not byte_count:
            return _missing_tile(page, corner_px)
        handle = self.file.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(byte_count)
        try:
            if len(data) < byte_count:
                raise UserError("the file is truncated")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:  # decoders raise almost anything on broken tiles
            x, y = corner_px
            raise UserError(
                f"the pixels at ({x}, {y}) are broken: {one_line(error, 120)}"
            ) from None
        assert pixels is not None  # they are None only for an empty segment
        return pixels[0]  # of (depth, height, width, samples); `_check` has ensured a depth of 1

    def _read_rows(self, page: "TiffPage", block_row: int) -> np.ndarray:
        """Return a block of rows of an image that is uncompressed and contiguous in the file."""
        assert page.dtype is not None  # `_check` has rejected other pages
        height, width = _block_size(page)
        rows = min(height, page.imagelength - block_row * height)
        stored_type = page.dtype.newbyteorder(page.parent.byteorder)
        row_bytes = width * page.samplesperpixel * stored_type.itemsize
        handle = self.file.filehandle
        handle.seek(page.dataoffsets[0] + block_row * height * row_bytes)
        data = handle.read(rows * row_bytes)
        if len(data) < rows * row_bytes:
            raise UserError("the file is truncated")
        return np.frombuffer(data, stored_type).reshape(rows, width, -1).astype(page.dtype)


def _open(path: Path) -> tuple["TiffFile", list["TiffPage"]]:
    """Open a file; return it and the pages of its first image, the finest first."""
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
    # An image has the axes Y and X, and perhaps S for samples (channels), in any order.
    if sorted(series.axes) not in (["X", "Y"], ["S", "X", "Y"]):
        file.close()
        raise UserError(
            f"contains a stack of images (axes {series.axes}): store one image per file"
        )
    return file, pages


def _check(page: "TiffPage", file_bytes: int) -> None:
    """Raise UserError unless single blocks of a page can be read, and all are in the file."""
    if page.imagedepth != 1 or page.photometric not in (INVERTED, BLACK, RGB, PALETTE, YCBCR):
        raise UserError(f"unsupported pixels ({page.photometric!s}): store RGB or greyscale")
    if page.photometric == YCBCR and page.compression not in JPEGS:
        raise UserError("YCbCr is supported in JPEG compression only: store RGB")
    if page.tags.valueof(ORIENTATION, UPRIGHT) != UPRIGHT:
        raise UserError("the file is marked as rotated or mirrored: store it upright")
    if page.dtype is None or page.dtype.kind not in "buf":  # booleans, unsigned integers, floats
        raise UserError(f"unsupported pixels of {page.dtype}: store unsigned integers")
    if _channels(page) not in (1, 3):
        raise UserError(f"it has {_channels(page)} channels: store 1 (greyscale) or 3 (colour)")
    check_block(_block_size(page), page.samplesperpixel, page.dtype.itemsize)
    ends = np.asarray(page.dataoffsets, np.uint64) + np.asarray(page.databytecounts, np.uint64)
    if len(ends) < int(np.prod(page.chunked)):
        raise UserError("its list of tiles is incomplete")
    if int(ends.max(initial=0)) > file_bytes:
        raise UserError(
            f"the file is truncated: it has {file_bytes:,} bytes, and its pixels end at "
            f"{ends.max():,}"
        )


def _channels(page: "TiffPage") -> int:
    """Return the number of colour channels, without alpha."""
    if page.photometric == PALETTE:
        return 3
    return page.samplesperpixel - len(page.extrasamples)


def _is_contiguous(page: "TiffPage") -> bool:
    """Return whether the pixels are uncompressed and contiguous in the file, row by row."""
    is_complete = sum(page.databytecounts) >= page.nbytes
    is_interleaved = page.planarconfig == INTERLEAVED
    # `is_final`: tifffile finds the pixels stored as they are, except for their byte order.
    return bool(not page.is_tiled and page.is_final and is_interleaved and is_complete)


def _block_size(page: "TiffPage") -> Size:
    """Return height and width in pixels of the part that is decoded at once."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    rows = min(page.rowsperstrip, page.imagelength)
    if _is_contiguous(page):
        rows = min(page.imagelength, CONTIGUOUS_ROWS)
    return rows, page.imagewidth


def _missing_tile(page: "TiffPage", corner_px: tuple[int, int]) -> np.ndarray:
    """Return the pixels of a tile that the file omits.

    Raises:
        UserError: the file gives no value for such pixels.
    """
    if NODATA not in page.tags:
        x, y = corner_px
        raise UserError(f"the tile at ({x}, {y}) is missing")
    height, width = _block_size(page)
    samples = 1 if page.planarconfig == SEPARATE else page.samplesperpixel
    return np.full((height, width, samples), page.nodata, dtype=page.dtype)


def _colours(pixels: np.ndarray, page: "TiffPage") -> np.ndarray:
    """Return pixels as floats (height, width, 1 or 3) in [0, 1], blended with white.

    Args:
        pixels: (height, width, samples), as stored in the page.
        page: page that the pixels belong to.
    """
    if page.photometric == PALETTE:
        assert page.colormap is not None
        return as_fractions(page.colormap[:, pixels[..., 0]].transpose(1, 2, 0), bits=16)
    fractions = as_fractions(pixels, _bits(page)).clip(max=1)
    colours = fractions[..., : _channels(page)]
    if page.photometric == INVERTED:
        colours = 1 - colours
    # Of several extra samples, the first is alpha; it follows the colours.
    alpha_kind = next(map(int, page.extrasamples), None)
    if alpha_kind in (ASSOCIATED, UNASSOCIATED):
        alpha = fractions[..., _channels(page), None]
        if alpha_kind == UNASSOCIATED:
            colours = colours * alpha
        colours = colours + 1 - alpha
    return np.ascontiguousarray(colours)


def _bits(page: "TiffPage") -> int:
    """Return the bits per integer that the file declares, or else those of the stored type."""
    maximum, description = (page.tags.valueof(tag) for tag in (MAXIMUM, DESCRIPTION))
    declared = tiff_bits(
        page.bitspersample, is_signed=False, maximum=maximum, description=description
    )
    return int(page.bitspersample) if declared is None else declared
