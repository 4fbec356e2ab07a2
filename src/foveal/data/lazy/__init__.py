"""Images of any size, of which only what is asked for is decoded: one format, one file."""

from foveal.data.lazy.files import LargeFiles
from foveal.data.lazy.image import LargeImage
from foveal.data.lazy.opening import FORMATS, open_large

__all__ = ["FORMATS", "LargeFiles", "LargeImage", "open_large"]
