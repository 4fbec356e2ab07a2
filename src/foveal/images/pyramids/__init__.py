"""Images of any size, of which only the parts that are read are decoded; one module per format.

A pyramid is an image that its file stores at several resolutions, which are called levels.
"""

from foveal.images.pyramids.files import LargeFiles
from foveal.images.pyramids.image import LargeImage
from foveal.images.pyramids.opening import FORMATS, open_large

__all__ = ["FORMATS", "LargeFiles", "LargeImage", "open_large"]
