"""Labelled images of a dataset, with their metadata."""

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

_MAX_LISTED = 5  # maximum number of problems listed one by one


def new_labels(labels: Tensor, indices: Sequence[int | None]) -> Tensor:
    """Return labels (N,), each replaced by the entry of `indices` at its position; -1 for None.

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
        reason: description of the problem, which messages print after the path.
        kept: whether the image was used in spite of the problem, for example if its range of values
            had to be guessed.
    """

    path: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{'' if self.kept else 'skipped '}{printable(self.path)}: {self.reason}"


def problem_lines(problems: Iterable[Problem]) -> list[str]:
    """Return a line for each of the first problems, at most one per path.

    If there are more, the last line gives their number.
    """
    by_path = {problem.path: problem for problem in problems}
    lines = [str(problem) for problem in list(by_path.values())[:_MAX_LISTED]]
    if len(by_path) > _MAX_LISTED:
        lines.append(f"and {len(by_path) - _MAX_LISTED:,} others")
    return lines


# The type of the images: a tensor, `Photos`, `LargeImages`, or stored features instead of images.
Pixels = TypeVar("Pixels", default=Tensor, covariant=True)


@dataclass(frozen=True)
class ImageSet(Generic[Pixels]):
    """One split of a dataset.

    Attributes:
        name: name of the dataset.
        split: `train`, `val` or `test`.
        images: uint8 (N, C, H, W), `Photos`, which are ordered by size, or `LargeImages`.
        labels: labels of the main task: class indices (N,), or booleans (N, classes) if an image
            may have any number of classes.
        classes: name of each class.
        paths: file of each image, or file and row; empty if the images have no files.
        problems: images that were skipped, or read with a guessed range of values.
        masks: uint8 (N, 1, H, W), 255 in annotated regions, as a tensor or `Photos` like `images`;
            None if there are no annotations. The mask of an image without annotation is all 0.
        notes: lines that tell the user how a folder was interpreted.
        groups: group of each image, such as a patient, whose images stay in one split; or empty.
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
        """Return the same images with the labels of some tasks only.

        Args:
            tasks: names of one or more tasks; the first becomes the main task.

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
        """Yield the images in order, those of each height and width as one set."""
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
            for indices in torch.arange(len(group)).split(step):
                yield group.subset(indices)

    def relabelled(
        self, indices: Sequence[int | None], classes: tuple[str, ...]
    ) -> "ImageSet[Pixels]":
        """Return the images relabelled for other classes.

        Args:
            indices: the new index of each class, or None to drop its images.
            classes: names of the new classes, to which `indices` refer.
        """
        labels, is_known = _relabel(self.labels, indices, len(classes))
        tasks = {}
        for task, old in self.tasks.items():
            tasks[task], is_known_in_task = _relabel(old, indices, len(classes))
            is_known = is_known & is_known_in_task
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
            in_class = labels == label
            ranks[in_class] = torch.arange(int(in_class.sum()))
        chosen = order[ranks.argsort(stable=True)[:count]]
        return self.subset(chosen.sort().values if isinstance(self.images, Photos) else chosen)


def _relabel(
    labels: Tensor, indices: Sequence[int | None], class_count: int
) -> tuple[Tensor, Tensor]:
    """Return the new labels, and whether all classes of each image have a new index (N,).

    Args:
        labels: class indices (N,), or booleans (N, classes).
        indices: the new index of each class, or None.
        class_count: number of new classes.
    """
    if labels.dtype != torch.bool:
        relabelled = new_labels(labels, indices)
        return relabelled, relabelled >= 0
    relabelled = torch.zeros(len(labels), class_count, dtype=torch.bool)
    is_known = torch.ones(len(labels), dtype=torch.bool)
    for column, index in zip(labels.T, indices, strict=True):
        if index is None:
            is_known &= ~column
        else:
            relabelled[:, index] = column
    return relabelled, is_known
