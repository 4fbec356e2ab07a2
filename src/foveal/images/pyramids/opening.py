"""Opening of large images by file extension."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from foveal.foundation.files import check_regular
from foveal.images.formats import EXTENSIONS
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
    **dict.fromkeys(EXTENSIONS, Photo),
    **_TIFF,
    **_SLIDES,
    ".zarr": Zarr,
}
MANY_PIXELS = 50_000_000  # larger images are slow to read as a whole


def open_large(path: str | Path, channels: int | None = None) -> LargeImage:
    """Open an image of any size; only the parts that are read are decoded.

    TIFF and BigTIFF (`pip install 'foveal[tiff]'`), whole slides (`[slides]`), zarr and OME-Zarr
    (`[zarr]`) are read in part. Images in other formats are decoded as a whole, and rejected if
    they have more than `images.decode.MAX_PIXELS`; a JPEG is decoded at a lower resolution for a
    thumbnail. If a file does not store a lower resolution, a thumbnail requires reading all pixels,
    part by part; if they are many, the `note` of the image warns of that.

    Args:
        path: path of a file, or of the folder of a zarr.
        channels: 1 for greyscale, 3 for colour, None for those of the image.

    Raises:
        UserError: the file is missing, not regular, broken, truncated or of an unknown format; or
            the package that reads it is not installed.
    """
    path = Path(path)
    with suppress(OSError):  # the constructor of the pyramid reports the same problem
        # Libraries open the file by its path, and would wait forever for a FIFO.
        check_regular(path, sys.maxsize)
    pyramid = FORMATS.get(path.suffix.lower(), Photo)(path)
    height, width = pyramid.levels[0].size
    if pyramid.levels[-1].scale == 1 and height * width > MANY_PIXELS:
        pyramid.note = (
            f"has no coarser level: a thumbnail requires reading all {height * width:,} pixels"
        )
    watched_file = next((path / name for name in _METADATA if (path / name).is_file()), path)
    return LargeImage(pyramid, watched_file, channels)


# Files in the folder of a zarr that describe its chunks, and change when it is rewritten.
_METADATA = ("zarr.json", ".zgroup", ".zarray")
