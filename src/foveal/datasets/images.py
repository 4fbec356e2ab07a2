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

_LISTED = 5  # problems listed one by one


def new_labels(labels: Tensor, indices: Sequence[int | None]) -> Tensor:
    """Return labels (N,) replaced by their entries of `indices`, -1 for None.

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
    """A problem with a file or folder: by default, the reason why it was left out.

    Attributes:
        path: path of the file or folder.
        reason: description that follows the path in messages.
        kept: whether no image was lost, as when it was read by guessing.
    """

    path: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{'' if self.kept else 'left out '}{printable(self.path)}: {self.reason}"


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each of the first problems, one per path, and the number of others."""
    by_path = {problem.path: problem for problem in problems}
    lines = [str(problem) for problem in list(by_path.values())[:_LISTED]]
    return lines + [f"and {len(by_path) - _LISTED:,} others"] * (len(by_path) > _LISTED)


# A tensor, photographs of several sizes, large images, or features instead of images.
Pixels = TypeVar("Pixels", default=Tensor, covariant=True)


@dataclass(frozen=True)
class ImageSet(Generic[Pixels]):
    """One split of a dataset.

    Attributes:
        name: name of the dataset.
        split: `train`, `val` or `test`.
        images: uint8 (N, C, H, W), photographs in the order of their sizes, or large images.
        labels: labels of the main task, as (N,) class indices, or as booleans (N, classes) where
            an image may have any number of classes.
        classes: name of each class.
        paths: source of each image, or empty.
        problems: images that were left out or read by guessing.
        masks: (N, 1, H, W) uint8, 255 in annotated regions, of the same type as `images`; or
            None. The mask of an image without annotation is all 0.
        notes: how the layout of a folder was interpreted, one line each.
        groups: group of each image, or empty; images of one group belong together.
        named: whether `classes` are real names; otherwise they are indices.
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
        known = self.tasks or {"class": self.labels}
        for task in tasks:
            if task not in known:
                raise unknown_name(f"task of {self.name}", task, known)
        chosen = {task: known[task] for task in tasks}
        return replace(self, labels=chosen[tasks[0]], tasks=chosen)

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
        one: Any = self
        masks = repeat(None) if self.masks is None else parts_of(one.masks)
        first = 0
        for images, part_masks in zip(parts_of(one.images), masks, strict=False):
            part = slice(first, first + len(images))
            labels, paths = self.labels[part], self.paths[part]
            yield replace(one, images=images, labels=labels, paths=paths, masks=part_masks)
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
            indices: the new index of each class, or None to leave its images out.
            classes: names of the new classes.
        """
        labels, known = _relabelled(self.labels, indices, len(classes))
        tasks = {}
        for task, old in self.tasks.items():
            tasks[task], task_known = _relabelled(old, indices, len(classes))
            known = known & task_known
        found = replace(self, labels=labels, tasks=tasks, classes=classes)
        return found if known.all() else found.subset(known.nonzero().flatten())

    def few(self, count: int, seed: int = 0) -> "ImageSet[Pixels]":
        """Return `count` images drawn at random, balanced over the classes as far as possible.

        Photographs stay in the order of their sizes.

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
            own = labels == label
            ranks[own] = torch.arange(int(own.sum()))
        chosen = order[ranks.argsort(stable=True)[:count]]
        return self.subset(chosen.sort().values if isinstance(self.images, Photos) else chosen)


def _relabelled(
    labels: Tensor, indices: Sequence[int | None], classes: int
) -> tuple[Tensor, Tensor]:
    """Return the new labels, and whether all classes of each image are known (N,)."""
    if labels.dtype != torch.bool:
        found = new_labels(labels, indices)
        return found, found >= 0
    found = torch.zeros(len(labels), classes, dtype=torch.bool)
    known = torch.ones(len(labels), dtype=torch.bool)
    for column, index in zip(labels.T, indices, strict=True):
        if index is None:
            known &= ~column
        else:
            found[:, index] = column
    return found, known
