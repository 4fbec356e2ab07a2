"""Labelled images in memory with their metadata."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, Generic

import torch
from torch import Tensor
from typing_extensions import TypeVar

from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.escaping import printable
from foveal.images import selected
from foveal.images.photos import PIXELS, Photos, parts_of

_MAX_LISTED = 5  # problems listed one by one


def new_labels(labels: Tensor, indices: Sequence[int | None]) -> Tensor:
    """Return labels (N,) replaced by their entries in `indices`, -1 for None.

    Raises:
        UserError: `indices` has no entry for a label.
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(indices)):
        raise UserError(
            f"Expected labels from 0 to {len(indices) - 1}, but got {int(labels.min())} to "
            f"{int(labels.max())}."
        )
    return torch.tensor([-1 if index is None else index for index in indices])[labels.long()]


@dataclass(frozen=True)
class Problem:
    """A problem with a file or folder: by default, the reason why it was skipped.

    Attributes:
        path: path of the file or folder.
        reason: description that follows the path in messages.
        kept: whether the image was kept, for example read with a guessed range of values.
    """

    path: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{'' if self.kept else 'skipped '}{printable(self.path)}: {self.reason}"


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each of the first problems, one per path, and the number of others."""
    by_path = {problem.path: problem for problem in problems}
    lines = [str(problem) for problem in list(by_path.values())[:_MAX_LISTED]]
    return lines + [f"and {len(by_path) - _MAX_LISTED:,} others"] * (len(by_path) > _MAX_LISTED)


# A tensor, photographs of several sizes, large images, or features instead of images.
Pixels = TypeVar("Pixels", default=Tensor, covariant=True)


@dataclass(frozen=True)
class ImageSet(Generic[Pixels]):
    """One split of a dataset.

    Attributes:
        name: name of the dataset.
        split: `train`, `val` or `test`.
        images: uint8 (N, C, H, W), photographs ordered by size, or large images.
        labels: labels of the main task, as (N,) class indices, or as booleans (N, classes) if an
            image may have any number of classes.
        classes: name of each class.
        paths: source of each image, or empty.
        problems: images that were skipped, or read with a guessed range of values.
        masks: (N, 1, H, W) uint8, 255 in annotated regions, of the same type as `images`; or
            None. The mask of an image without annotation is all 0.
        notes: how the layout of a folder was interpreted, one line each.
        groups: group of each image, or empty; images of one group belong together.
        named: whether `classes` are real names; False if they are indices.
        tasks: labels by task, the main task first; empty if there is only one task.
    """

    name: str
    split: str
    images: Pixels
    labels: Tensor
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    masks: Pixels | None = None
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    named: bool = True
    tasks: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, tasks: Sequence[str]) -> "ImageSet[Pixels]":
        """Return the same images with the labels of some tasks, in the given order.

        Raises:
            UserError: there are no labels for a task.
        """
        labels = self.tasks or {"class": self.labels}
        for task in tasks:
            if task not in labels:
                raise unknown_name(f"task of {self.name}", task, labels)
        selected_labels = {task: labels[task] for task in tasks}
        return replace(self, labels=selected_labels[tasks[0]], tasks=selected_labels)

    def subset(self, indices: Tensor) -> "ImageSet[Pixels]":
        """Return the images at `indices` (M,), in that order."""
        indices = torch.as_tensor(indices)
        paths = tuple(self.paths[int(i)] for i in indices) if self.paths else ()
        groups = tuple(self.groups[int(i)] for i in indices) if self.groups else ()
        masks = None if self.masks is None else selected(self.masks, indices)
        return replace(
            self,
            images=selected(self.images, indices),
            labels=self.labels[indices],
            paths=paths,
            masks=masks,
            groups=groups,
            tasks={task: labels[indices] for task, labels in self.tasks.items()},
        )

    def by_size(self) -> Iterator["ImageSet[Tensor]"]:
        """Yield the images in order, grouped by height and width."""
        untyped: Any = self
        masks = repeat(None) if self.masks is None else parts_of(untyped.masks)
        first = 0
        for images, part_masks in zip(parts_of(untyped.images), masks, strict=False):
            part = slice(first, first + len(images))
            labels, paths = self.labels[part], self.paths[part]
            yield replace(untyped, images=images, labels=labels, paths=paths, masks=part_masks)
            first += len(images)

    def batches(self, size: int, pixels: int = PIXELS) -> Iterator["ImageSet[Tensor]"]:
        """Yield the images in order, in batches of equal height and width.

        Args:
            size: maximum number of images per batch.
            pixels: maximum number of pixels per batch; a single image may exceed it.
        """
        for group in self.by_size():
            height, width = group.images.shape[-2:]
            step = max(1, min(size, pixels // (height * width)))
            for part in torch.arange(len(group)).split(step):
                yield group.subset(part)

    def relabelled(
        self, indices: Sequence[int | None], classes: tuple[str, ...]
    ) -> "ImageSet[Pixels]":
        """Return the images relabelled for other classes.

        Args:
            indices: the new index of each class, or None to drop its images.
            classes: names of the new classes.
        """
        labels, is_known = _relabel(self.labels, indices, len(classes))
        tasks = {}
        for task, old in self.tasks.items():
            tasks[task], task_known = _relabel(old, indices, len(classes))
            is_known = is_known & task_known
        images = replace(self, labels=labels, tasks=tasks, classes=classes)
        return images if is_known.all() else images.subset(is_known.nonzero().flatten())

    def few(self, count: int, seed: int = 0) -> "ImageSet[Pixels]":
        """Return `count` images drawn at random, balanced over the classes as far as possible.

        Photographs stay ordered by size.

        Raises:
            UserError: there are fewer images.
        """
        if count > len(self):
            raise UserError(
                f"Expected at most {len(self)} images, the size of {self.name}, but got {count}."
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels[order]
        # The first image of each class, then the second of each class, and so on.
        ranks = torch.zeros_like(labels)
        for label in labels.unique():
            of_class = labels == label
            ranks[of_class] = torch.arange(int(of_class.sum()))
        chosen = order[ranks.argsort(stable=True)[:count]]
        return self.subset(chosen.sort().values if isinstance(self.images, Photos) else chosen)


def _relabel(labels: Tensor, indices: Sequence[int | None], classes: int) -> tuple[Tensor, Tensor]:
    """Return the new labels, and whether all classes of each image have a new index (N,)."""
    if labels.dtype != torch.bool:
        new = new_labels(labels, indices)
        return new, new >= 0
    new = torch.zeros(len(labels), classes, dtype=torch.bool)
    is_known = torch.ones(len(labels), dtype=torch.bool)
    for column, index in zip(labels.T, indices, strict=True):
        if index is None:
            is_known &= ~column
        else:
            new[:, index] = column
    return new, is_known
