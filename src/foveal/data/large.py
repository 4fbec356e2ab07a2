"""One split of a dataset of large images, which stay where they are until a part is read."""

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from foveal.data.folder import list_folder
from foveal.data.generated import SparseImages, megapixel_mnist
from foveal.data.generated.megapixel import IMAGES, SIDE, STROKES
from foveal.data.images import ImageSet, Problem, new_labels
from foveal.data.mnist import DIGITS
from foveal.data.splits import SPLITS
from foveal.errors import UserError, unknown_name
from foveal.images import LargeImages, SomeImages
from foveal.images.values import as_bytes

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
        problems: images that were left out.
        notes: what in a folder was taken for classes and splits, a line each.
    """

    name: str
    split: str
    images: LargeImages
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

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

    def relabelled(self, indices: Sequence[int | None], classes: tuple[str, ...]) -> "LargeSet":
        """Return the images with labels among other classes.

        Args:
            indices: for each class its index among `classes`, or None to leave its images out.
            classes: the names of these classes.
        """
        labels = {}
        known = torch.ones(len(self), dtype=torch.bool)
        for task, old in self.labels.items():
            if old.dtype == torch.bool:
                labels[task], task_known = _new_columns(old, indices, len(classes))
            else:
                labels[task] = new_labels(old, indices)
                task_known = labels[task] >= 0
            known &= task_known
        found = replace(self, labels=labels, classes=classes)
        return found if known.all() else found._some(known.nonzero().flatten())

    def _some(self, numbers: Tensor) -> "LargeSet":
        paths = tuple(self.paths[number] for number in numbers.tolist()) if self.paths else ()
        labels = {task: labels[numbers] for task, labels in self.labels.items()}
        return replace(self, images=SomeImages(self.images, numbers), labels=labels, paths=paths)


def _new_columns(
    labels: Tensor, indices: Sequence[int | None], classes: int
) -> tuple[Tensor, Tensor]:
    """Return booleans (N, classes) for others, and (N,) whether all that is true has a column."""
    found = torch.zeros(len(labels), classes, dtype=torch.bool)
    known = torch.ones(len(labels), dtype=torch.bool)
    for column, index in zip(labels.T, indices, strict=True):
        if index is None:
            known &= ~column
        else:
            found[:, index] = column
    return found, known


def load_large(
    source: str | Path, split: str, *, limit: int = 0, data_dir: str | Path | None = None
) -> LargeSet:
    """Return one split of a dataset of large images.

    Args:
        source: `megapixel-mnist`, or `megapixel-mnist-SIDE` for images of another side in pixels
            (smaller ones have fewer strokes, which are as dense then; larger ones have as many),
            or a folder of class folders, whose images may differ in size.
        split: `train`, `val` or `test`.
        limit: images to use, the first ones; 0 for all.
        data_dir: where named datasets lie; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: an unknown name or split, or data that cannot be read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    name = str(source)
    if is_generated(name):
        return _megapixel(name, split, limit, data_dir)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise unknown_name("folder or dataset of large images", name, ["megapixel-mnist"])
    return _photos(folder, split, limit)


def is_generated(name: str) -> bool:
    """Return whether a name is that of generated large images."""
    return _MEGAPIXEL.fullmatch(name) is not None


def _megapixel(name: str, split: str, limit: int, data_dir: str | Path | None) -> LargeSet:
    named = _MEGAPIXEL.fullmatch(name)
    assert named is not None
    side = int(named[1] or SIDE)
    strokes = min(STROKES, round(STROKES * (side / SIDE) ** 2))
    if limit > IMAGES[split]:
        raise UserError(f"Expected at most {IMAGES[split]} images, as {name} has, not {limit}.")
    images: SparseImages = megapixel_mnist(split, side, limit or None, strokes, data_dir)
    return LargeSet(name, split, images, images.labels, DIGITS)


def _photos(folder: Path, split: str, limit: int) -> LargeSet:
    """Return the photos of class folders; each is opened, and none is decoded."""
    from foveal.images.pyramids import FORMATS, LargeFiles, open_large

    found = list_folder(folder, split, FORMATS)
    order = torch.arange(len(found.files))
    if limit:
        order = torch.randperm(len(order), generator=torch.Generator().manual_seed(0))[:limit]
    kept, channels, broken = [], [], []
    for index in order.tolist():
        try:
            with closing(open_large(found.files[index])) as image:
                channels.append(image.channels)
            kept.append(index)
        except UserError as error:
            broken.append(Problem(str(found.files[index]), str(error)))
    if not kept:
        raise UserError(
            f"No image in {found.part} could be read: {broken[0].path}: {broken[0].reason}."
        )
    paths = [found.files[index] for index in kept]
    return LargeSet(
        name=folder.resolve().name,
        split=split,
        images=LargeFiles(paths, max(channels)),
        labels={"class": found.labels[kept]},
        classes=found.classes,
        paths=tuple(str(path) for path in paths),
        problems=(*found.problems, *broken),
        notes=found.notes,
    )


def seen_small(large: LargeSet, size: tuple[int, int]) -> ImageSet:
    """Return large images as thumbnails in memory, with the labels of their main task.

    Args:
        large: whose main task has one class an image.
        size: height and width in pixels that the thumbnails have at least, and not twice.
    """
    shrink = max(1, min(side // small for side, small in zip(large.images.size, size, strict=True)))
    parts = [
        as_bytes(large.images.thumbnails(numbers, shrink))
        for numbers in torch.arange(len(large)).split(100)
    ]
    labels = next(iter(large.labels.values()))
    return ImageSet(large.name, large.split, torch.cat(parts), labels, large.classes)


def sample_px(images: LargeImages, count: int = 32, squares: int = 16, side: int = 64) -> Tensor:
    """Return pixels (M, C) of squares anywhere in some of the images, the same from every call."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(len(images), (count,), generator=generator)
    height, width = images.size
    last = torch.tensor([max(width - side, 0), max(height - side, 0)])
    corners = (torch.rand(count, squares, 2, generator=generator) * (last + 1)).long()
    return images.crops(numbers, corners, side).movedim(2, -1).flatten(0, -2)
