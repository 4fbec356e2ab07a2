"""Images: views through which every model reads them."""

from foveal.images.views import LargeImages, PartView, SomeImages, View, WholeView

__all__ = ["LargeImages", "PartView", "SomeImages", "View", "WholeView"]
