"""Settings of training on large images."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import Range
from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Large:
    """Training of a `high-res` model's detector.

    Attributes:
        first: a dataset of smaller images for the first epochs, with the same number of images
            and the same tasks; empty for none.
        first_epochs: number of these epochs.
        first_keypoints: number of patches in these epochs; 0 for the usual number.
        distil: weight, after these epochs, of the ranking loss by which the head's weights of the
            patches teach the detector's scores.
    """

    first: str = ""
    first_epochs: Annotated[int, Range(0, 1_000_000)] = 0
    first_keypoints: Annotated[int, Range(0, 4096)] = 0
    distil: Amount = 1.0
