"""Images of any size, decoded only where they are read; one module per format."""

from foveal.images.pyramids.files import LargeFiles
from foveal.images.pyramids.image import LargeImage
from foveal.images.pyramids.opening import FORMATS, open_large

__all__ = ["FORMATS", "LargeFiles", "LargeImage", "open_large"]
