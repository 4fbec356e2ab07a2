"""Images: their files, folders and URLs, their pixels, and the views that models read.

A view is a batch of images in the form in which a model reads it: as a whole, as thumbnails, or
in patches.

Decoding one image (`decode`, `depth`, `formats`, `sizing`) needs no PyTorch.
"""

from typing import TYPE_CHECKING

from foveal.foundation.lazy import lazy_names

_VIEWS = ("LargeImages", "PartView", "SomeImages", "View", "WholeView", "selected")
if TYPE_CHECKING:
    from foveal.images.views import LargeImages, PartView, SomeImages, View, WholeView, selected
else:  # the server's decoding process starts without torch
    __getattr__ = lazy_names(__name__, dict.fromkeys(_VIEWS, "foveal.images.views"))

__all__ = ["LargeImages", "PartView", "SomeImages", "View", "WholeView", "selected"]
