"""Settings of training on large images."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import Range
from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Large:
    """How the detector of a `high-res` model is trained.

    Attributes:
        first: a dataset of smaller images for the first epochs, with the same number of images
            and the same tasks; empty for none.
        first_epochs: number of these epochs.
        first_keypoints: number of patches per image in these epochs; 0 for the model's own number.
        distil: weight, after these epochs, of the ranking loss, which trains the detector to give
            higher scores to the patches that have more weight in the head.
    """

    first: str = ""
    first_epochs: Annotated[int, Range(0, 1_000_000)] = 0
    first_keypoints: Annotated[int, Range(0, 4096)] = 0
    distil: Amount = 1.0
