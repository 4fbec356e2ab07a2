"""One split of a dataset of large images, which stay where they are until a part is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.generated import SparseImages, megapixel_mnist
from foveal.data.generated.megapixel import IMAGES, SIDE, STROKES
from foveal.data.mnist import DIGITS
from foveal.data.splits import SPLITS
from foveal.errors import UserError, unknown_name
from foveal.large import LargeImages

__all__ = ["LargeImages", "LargeSet", "load_large"]

_MEGAPIXEL = re.compile(r"megapixel-mnist(?:-(\d{1,6}))?")


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

    def of(self, tasks: tuple[str, ...]) -> "LargeSet":
        """Return the same images with the labels of some tasks, in their order.

        Raises:
            UserError: a task that there are no labels for.
        """
        for task in tasks:
            if task not in self.labels:
                raise unknown_name(f"task of {self.name}", task, self.labels)
        return replace(self, labels={task: self.labels[task] for task in tasks})


def load_large(
    source: str | Path, split: str, *, limit: int = 0, data_dir: str | Path | None = None
) -> LargeSet:
    """Return one split of a dataset of large images.

    Args:
        source: `megapixel-mnist`, or `megapixel-mnist-SIDE` for images of another side in pixels.
            Smaller ones have fewer strokes, which are as dense then; larger ones have as many.
        split: `train`, `val` or `test`.
        limit: images to use, the first ones; 0 for all.
        data_dir: where named datasets lie; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: an unknown name or split, or data that cannot be read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    name = str(source)
    named = _MEGAPIXEL.fullmatch(name)
    if named is None:
        raise unknown_name("dataset of large images", name, ["megapixel-mnist"])
    side = int(named[1] or SIDE)
    strokes = min(STROKES, round(STROKES * (side / SIDE) ** 2))
    if limit > IMAGES[split]:
        raise UserError(f"Expected at most {IMAGES[split]} images, as {name} has, not {limit}.")
    images: SparseImages = megapixel_mnist(split, side, limit or None, strokes, data_dir)
    return LargeSet(name, split, images, images.labels, DIGITS)


def sample_px(images: LargeImages, count: int = 32, squares: int = 16, side: int = 64) -> Tensor:
    """Return pixels (M, C) of squares anywhere in some of the images, the same from every call."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(len(images), (count,), generator=generator)
    height, width = images.size
    last = torch.tensor([max(width - side, 0), max(height - side, 0)])
    corners = (torch.rand(count, squares, 2, generator=generator) * (last + 1)).long()
    return images.crops(numbers, corners, side).movedim(2, -1).flatten(0, -2)
