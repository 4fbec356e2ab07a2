"""The interface of detectors: view -> located."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from foveal.foundation.arguments import check_constructor, constructor_settings
from foveal.images import View
from foveal.images.geometry import Size


class Located(NamedTuple):
    """Where a detector would cut patches in B images, and what else it hands on.

    Keypoints are held elsewhere by `located._replace(xy=...)`.
    """

    xy: Tensor  # (B, K, 2) in grid units
    scale: Tensor | None = None  # (B, K) pixels between samples; None for whole pixels
    score: Tensor | None = None  # (B, K) of the detector
    context: Tensor | None = None  # (B, D), which the head reads beside the patches
    thumbnail: Tensor | None = None  # (B, C, h, w), normalised, which counts as evidence
    canvas: Tensor | None = None  # (B, C + 1, H, W), patches on an empty image, and their mask
    score_map: Tensor | None = None  # (B, h', w') of all cells of the thumbnail


class Detector(nn.Module, ABC):
    """Finds keypoints in images.

    A subclass is final, takes plain values (numbers, strings, lists of them) or a backbone, and
    keeps each argument as an attribute of the same name, so that `settings` can write it
    down. Arguments are checked by their annotations (`foveal.foundation.ranges`).

    Attributes:
        keypoints: number K of keypoints.
        least_side: minimum side of the images in pixels.
        scaled: whether patches have a scale.
        context: dimension D of the context vector; 0 for none.
        in_part: whether it reads no more of the images than thumbnails and crops, so that they
            may be of any size.
        blocks: whether each sample of a patch is the mean of a square of `scale` pixels, and the
            scales follow from the size of the images, see `scales_of`.
    """

    keypoints: int
    least_side: int = 1
    scaled: bool = False
    context: int = 0
    in_part: bool = False
    blocks: bool = False

    def __init_subclass__(cls, **options: object) -> None:
        check_constructor(cls)
        super().__init_subclass__(**options)

    @abstractmethod
    def forward(self, view: View) -> Located:
        """Return where to cut patches, for a view of B normalised images."""

    def thumbnail(self, view: View) -> Tensor | None:
        """Return the thumbnail (B, C, h, w) that it reads and that counts as evidence, or None."""
        return None

    def scales_of(self, size: Size) -> list[int]:
        """Return the pixels per sample of each of the K patches in images of a size; for `blocks`.

        Args:
            size: height and width of the images in pixels.
        """
        return []

    def settings(self) -> dict[str, object]:
        """Return the arguments that build this detector again."""
        return constructor_settings(self)
