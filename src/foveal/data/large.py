"""One split of a dataset of large images, which stay where they are until a part is read."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from foveal.large import LargeImages

__all__ = ["LargeImages", "LargeSet"]


@dataclass(frozen=True)
class LargeSet:
    """One split of a dataset of large images.

    Attributes:
        name: of the dataset.
        split: `train`, `val` or `test`.
        images: what reads them.
        labels: for each task class numbers (N,), or booleans (N, classes) where an image has any
            number of classes. The first task is the main one.
        classes: a name for each class.
        paths: where each image comes from, or empty.
    """

    name: str
    split: str
    images: LargeImages
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)
