"""Images in memory: one tensor of bytes and what is known of it."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveal.errors import UserError


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
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> "ImageSet":
        """Return the images at `indices` (M,), in that order."""
        indices = torch.as_tensor(indices)
        paths = tuple(self.paths[int(i)] for i in indices) if self.paths else ()
        masks = None if self.masks is None else self.masks[indices]
        images, labels = self.images[indices], self.labels[indices]
        return replace(self, images=images, labels=labels, paths=paths, masks=masks)

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
