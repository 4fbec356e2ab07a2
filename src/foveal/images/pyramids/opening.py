"""Open a large image by the format that its name says."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foveal.foundation.files import check_regular
from foveal.images.formats import ENDINGS
from foveal.images.pyramids.image import LargeImage
from foveal.images.pyramids.ome_zarr import Zarr
from foveal.images.pyramids.photo import Photo
from foveal.images.pyramids.pyramid import Pyramid
from foveal.images.pyramids.slide import Slide
from foveal.images.pyramids.tiff import Tiff

_TIFF = dict.fromkeys((".tif", ".tiff", ".btf", ".tf8"), Tiff)
_SLIDES = dict.fromkeys(
    (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm"), Slide
)
FORMATS: dict[str, Callable[[Path], Pyramid]] = {
    **dict.fromkeys(ENDINGS, Photo),
    **_TIFF,
    **_SLIDES,
    ".zarr": Zarr,
}
COARSE = 32  # an image without a level that is this coarse, and with many pixels, takes long
MANY = 50_000_000  # pixels


def open_large(path: str | Path, channels: int | None = None) -> LargeImage:
    """Open an image of any size, of which only what is asked for will be decoded.

    TIFF and BigTIFF (`pip install 'foveal[tiff]'`), whole slides (`[slides]`), zarr and OME-Zarr
    (`[zarr]`) are read in part. Of other formats, JPEG's thumbnails are; at full resolution they
    are decoded as a whole, and refused if that is more than `images.decode.MAX_PIXELS`. Where there
    is no coarse level to take a thumbnail from, all pixels are read for it, part by part: the
    image's `note` says so.

    Args:
        path: a file, or the folder of a zarr.
        channels: 1 for grey, 3 for colour, None for what the image has.

    Raises:
        UserError: the file is not there, no regular one, broken, cut off, or of a kind that is
            not read; or the package that reads it is not installed.
    """
    path = Path(path)
    with suppress(OSError):  # which the format finds too, and words
        check_regular(path, sys.maxsize)  # libraries open it by its path
    pyramid = FORMATS.get(path.suffix.lower(), Photo)(path)
    height, width = pyramid.levels[0].size
    if pyramid.levels[-1].scale == 1 and height * width > MANY:
        pyramid.note = (
            f"has no coarser level: a thumbnail takes reading all {height * width:,} pixels"
        )
    watched = next((path / name for name in _MEANING if (path / name).is_file()), path)
    return LargeImage(pyramid, watched, channels)


_MEANING = ("zarr.json", ".zgroup", ".zarray")  # of a zarr, what says how its chunks are read
