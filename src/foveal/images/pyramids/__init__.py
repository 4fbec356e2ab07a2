"""Images of any size, of which only what is asked for is decoded: one format, one file."""

from foveal.images.pyramids.files import LargeFiles
from foveal.images.pyramids.image import LargeImage
from foveal.images.pyramids.opening import FORMATS, open_large

__all__ = ["FORMATS", "LargeFiles", "LargeImage", "open_large"]
