"""Images in memory: one tensor of bytes and what is known of it."""

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

SAID = 5  # problems that are named


def new_labels(labels: Tensor, indices: Sequence[int | None]) -> Tensor:
    """Return labels (N,) with each label's entry of `indices` in its place, -1 for None.

    Raises:
        UserError: a label that `indices` has no entry for.
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(indices)):
        raise UserError(
            f"Expected labels from 0 to {len(indices) - 1}, but got {int(labels.min())} to "
            f"{int(labels.max())}."
        )
    return torch.tensor([-1 if index is None else index for index in indices])[labels.long()]


@dataclass(frozen=True)
class Problem:
    """What a user should know of a file or folder: by default, why it was left out.

    Attributes:
        path: of the file, or the folder.
        reason: in words that follow the path.
        kept: the image was read all the same, or none was lost.
    """

    path: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{'' if self.kept else 'left out '}{printable(self.path)}: {self.reason}"


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each of the first problems, each path once, and one that counts others."""
    by_path = {problem.path: problem for problem in problems}
    lines = [str(problem) for problem in list(by_path.values())[:SAID]]
    return lines + [f"and {len(by_path) - SAID:,} others"] * (len(by_path) > SAID)


# A tensor; of photographs that keep their proportions, tensors of their sizes; large images; or
# features in their place.
Pixels = TypeVar("Pixels", default=Tensor, covariant=True)


@dataclass(frozen=True)
class ImageSet(Generic[Pixels]):
    """One split of a dataset.

    Attributes:
        name: of the dataset.
        split: `train`, `val` or `test`.
        images: uint8 (N, C, H, W), photographs in the order of their sizes, or large images.
        labels: (N,) class indices, or booleans (N, classes) where an image has any number of
            classes; of the main task.
        classes: a name for each class.
        paths: where each image comes from, or empty.
        problems: images that were left out, or were read by a guess.
        masks: (N, 1, H, W) uint8, 255 where an image matters, of the kind that `images` are; or
            None. That of an image without an annotation is empty.
        notes: what in a folder was taken for classes and splits, a line each.
        groups: name of each image's group, of images that belong together, or empty.
        named: whether `classes` are names; else they are numbers, for want of names.
        tasks: labels of each task by its name, the main one first; empty where there is but one.
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
        """Return the same images with the labels of some tasks, in their order.

        Raises:
            UserError: a task that there are no labels for.
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
        """Yield the images of each height and width, in order."""
        one: Any = self
        masks = repeat(None) if self.masks is None else parts_of(one.masks)
        first = 0
        for images, marks in zip(parts_of(one.images), masks, strict=False):
            part = slice(first, first + len(images))
            labels, paths = self.labels[part], self.paths[part]
            yield replace(one, images=images, labels=labels, paths=paths, masks=marks)
            first += len(images)

    def batches(self, size: int, pixels: int = PIXELS) -> Iterator["ImageSet[Tensor]"]:
        """Yield the images in order, those of one batch of one height and width.

        Args:
            size: images in a batch at most.
            pixels: of all images of a batch at most; one image may have more.
        """
        for group in self.by_size():
            height, width = group.images.shape[-2:]
            step = max(1, min(size, pixels // (height * width)))
            for part in torch.arange(len(group)).split(step):
                yield group.subset(part)

    def relabelled(
        self, indices: Sequence[int | None], classes: tuple[str, ...]
    ) -> "ImageSet[Pixels]":
        """Return the images with labels among other classes.

        Args:
            indices: for each class its index among `classes`, or None to leave its images out.
            classes: the names of these classes.
        """
        labels, known = _relabelled(self.labels, indices, len(classes))
        tasks = {}
        for task, old in self.tasks.items():
            tasks[task], task_known = _relabelled(old, indices, len(classes))
            known = known & task_known
        found = replace(self, labels=labels, tasks=tasks, classes=classes)
        return found if known.all() else found.subset(known.nonzero().flatten())

    def few(self, count: int, seed: int = 0) -> "ImageSet[Pixels]":
        """Return `count` images drawn by chance, as many of each class as can be.

        Photographs stay in the order of their sizes.

        Raises:
            UserError: there are not so many.
        """
        if count > len(self):
            raise UserError(
                f"Expected at most {len(self)} images, as {self.name} has, not {count}."
            )
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        labels = self.labels[order]
        # The first of every class, then the second of every class, and so on.
        turns = torch.zeros_like(labels)
        for label in labels.unique():
            own = labels == label
            turns[own] = torch.arange(int(own.sum()))
        chosen = order[turns.argsort(stable=True)[:count]]
        return self.subset(chosen.sort().values if isinstance(self.images, Photos) else chosen)


def _relabelled(
    labels: Tensor, indices: Sequence[int | None], classes: int
) -> tuple[Tensor, Tensor]:
    """Return labels among other classes, and (N,) whether each image's are all known."""
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
