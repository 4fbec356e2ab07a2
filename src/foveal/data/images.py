"""Images in memory: one tensor of bytes and what is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveal.errors import UserError


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
    """An image that could not be read, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """One split of a dataset.

    Attributes:
        name: of the dataset.
        split: `train`, `val` or `test`.
        images: (N, C, H, W) bytes.
        labels: (N,) class numbers.
        classes: a name for each class.
        paths: where each image comes from, or empty.
        problems: images that were left out.
        masks: (N, 1, H, W) bytes, 255 where an image matters, or None.
        notes: what in a folder was taken for classes and splits, a line each.
        named: whether `classes` are names; else they are numbers, for want of names.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    masks: Tensor | None = None
    notes: tuple[str, ...] = ()
    named: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images at `indices` (M,), in that order."""
        indices = torch.as_tensor(indices)
        paths = tuple(self.paths[int(i)] for i in indices) if self.paths else ()
        masks = None if self.masks is None else self.masks[indices]
        images, labels = self.images[indices], self.labels[indices]
        return replace(self, images=images, labels=labels, paths=paths, masks=masks)

    def relabelled(self, indices: Sequence[int | None], classes: tuple[str, ...]) -> "ImageSet":
        """Return the images with labels among other classes.

        Args:
            indices: for each class its index among `classes`, or None to leave its images out.
            classes: the names of these classes.
        """
        labels = new_labels(self.labels, indices)
        found = replace(self, labels=labels, classes=classes)
        known = labels >= 0
        return found if known.all() else found.subset(known.nonzero().flatten())

    def few(self, count: int, seed: int = 0) -> "ImageSet":
        """Return `count` images drawn by chance, as many of each class as can be.

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
        return self.subset(order[turns.argsort(stable=True)[:count]])
