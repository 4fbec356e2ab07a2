"""The interface of detectors: a view of images -> `Located`."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from foveal.foundation.parts import Part
from foveal.images import View
from foveal.images.geometry import Size


class Located(NamedTuple):
    """Locations of patches in B images, and further outputs of a detector.

    `located._replace(xy=...)` moves the keypoints to other locations.
    """

    xy: Tensor  # (B, K, 2) in grid units
    scale: Tensor | None = None  # (B, K) pixels between samples; None for unscaled patches
    score: Tensor | None = None  # (B, K), the detector's score of each patch
    context: Tensor | None = None  # (B, D), read by the head in addition to the patches
    thumbnail: Tensor | None = None  # (B, C, h, w), normalised; counts as evidence
    canvas: Tensor | None = None  # (B, C + 1, H, W), patches on an empty image, and their mask
    score_map: Tensor | None = None  # (B, h', w'), scores of all cells of the thumbnail


class Detector(Part):
    """Finds keypoints in images.

    A subclass is final, takes plain values (numbers, strings, lists of them) or a backbone, and
    keeps each argument as an attribute, see `Part`.

    Attributes:
        keypoints: number K of keypoints.
        min_side: minimum side of the images in pixels.
        scaled: whether patches have a scale.
        context: dimension D of the context vector; 0 for none.
        in_part: whether it reads only thumbnails and crops, which allows images of any size.
        blocks: whether each sample of a patch is the mean of a square with a side of `scale`
            pixels; the scales then depend on the size of the images only, see `scales_of`.
    """

    keypoints: int
    min_side: int = 1
    scaled: bool = False
    context: int = 0
    in_part: bool = False
    blocks: bool = False

    @abstractmethod
    def forward(self, view: View) -> Located:
        """Return the locations of patches in a view of B normalised images."""

    def thumbnail(self, view: View) -> Tensor | None:
        """Return the thumbnail (B, C, h, w) that is read and counts as evidence, or None."""
        return None

    def scales_of(self, size: Size) -> list[int]:
        """Return the pixels per sample of each of K patches in images of a size, if `blocks`.

        Args:
            size: height and width of the images in pixels.
        """
        return []
