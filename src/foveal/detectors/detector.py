"""The interface of detectors, which choose the locations of patches in images.

A view is a batch of images that can be read as a whole, as a thumbnail or in parts
(`foveal.images.View`). A keypoint is a location (x, y) in grid units: x and y are -1 and 1 at the
edges of the image.
"""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from foveal.foundation.parts import Part
from foveal.images import View
from foveal.images.geometry import Size


class Located(NamedTuple):
    """Locations of patches in B images, and further outputs of a detector; None for absent ones.

    `located._replace(xy=...)` returns a copy with other locations.
    """

    xy: Tensor  # (B, K, 2), the keypoints: centres of the patches in grid units
    scale: Tensor | None = None  # (B, K), pixels between samples; None if patches are whole pixels
    score: Tensor | None = None  # (B, K), the detector's score of each patch
    context: Tensor | None = None  # (B, D), read by the head in addition to the patches
    thumbnail: Tensor | None = None  # (B, C, h, w), normalised; counts as evidence
    # (B, C + 1, H, W), patches on an empty image and their mask; added by the model for decoders.
    canvas: Tensor | None = None
    score_map: Tensor | None = None  # (B, h', w'), scores of all cells of the thumbnail


class Detector(Part):
    """Chooses the locations of K patches in each image, its keypoints.

    A concrete detector is not subclassed further. Its constructor takes plain values (numbers,
    strings, lists of these) or a backbone, and keeps each argument as an attribute of the same
    name, from which `Part` rebuilds the detector.

    Attributes:
        keypoints: number K of keypoints.
        min_side: minimum side of the images in pixels.
        scaled: whether patches have a scale: the pixels from one sample to the next.
        context: dimension D of the vector that the head reads in addition to the patches; 0 for
            none.
        in_part: whether it reads only thumbnails and crops, so that images may be larger than fits
            into memory.
        blocks: whether each sample of a patch is the mean of a square block of `scale` x `scale`
            pixels. The scales then depend only on the size of the images, and `scales_of` returns
            them.
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
        """Return the thumbnail (B, C, h, w) that counts as evidence, or None if there is none."""
        return None

    def scales_of(self, size: Size) -> list[int]:
        """Return the scale of each of the K patches, in pixels per sample; empty unless `blocks`.

        Args:
            size: height and width of the images in pixels.
        """
        return []
