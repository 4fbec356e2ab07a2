"""Images: views through which every model reads them."""

from foveal.images.views import LargeImages, PartView, SomeImages, View, WholeView, selected

__all__ = ["LargeImages", "PartView", "SomeImages", "View", "WholeView", "selected"]
