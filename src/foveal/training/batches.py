"""Batches of images or features, in an order that depends only on the seed and the epoch.

A part is the images of one size: images (N, C, H, W) are a single part, and photographs have a part
per size. A batch never mixes parts.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from foveal.images.photos import PIXELS, Photos, parts_of


class Batches:
    """Yields batches (images, labels) of uint8 images in memory.

    The number of photographs in a batch is limited by the pixels that they have together, and each
    part may end with a smaller batch.

    Args:
        images: uint8 images (N, C, H, W), or photographs.
        labels: (N,) class indices.
        batch_size: maximum number of images per batch, over all processes.
        seed: random seed of the order; None keeps the order of the images. With a seed, the last
            batch of images (N, C, H, W) is dropped if it is smaller than the others.
        get_epoch: returns the index of the current epoch, on which the order depends.
        alternate: whether to mirror each image left to right every other epoch: a random half of
            the images in even epochs, the other half in odd ones.
    """

    def __init__(
        self,
        images: Tensor | Photos,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        get_epoch: Callable[[], int] = lambda: 0,
        alternate: bool = False,
    ):
        self.parts: Sequence[Tensor] = parts_of(images)
        self.labels = labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        self.get_epoch = get_epoch
        self.alternate = alternate

    def __len__(self) -> int:
        if len(self.parts) == 1 and self.seed is not None:
            return len(self.labels) // self._batch_size(0)
        return sum(
            -(-self.image_count(part) // self._batch_size(part))  # rounded up
            for part in range(len(self.parts))
        )

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        rank, world = _rank_and_world_size()
        for part, batch in self._order():
            # Processes divide a batch. If it has too few images, each process reads all of them.
            indices = batch[rank::world] if len(batch) >= world else batch
            positions = indices + self._starts[part]
            yield self.take(part, indices, positions), self.labels[positions]

    def image_count(self, part: int) -> int:
        """Return the number of images of a part."""
        return len(self.parts[part])

    def image_cost(self, part: int) -> int:
        """Return the number of pixels of each image of a part, which limits its batches."""
        return self.parts[part].shape[-2] * self.parts[part].shape[-1]

    def take(self, part: int, indices: Tensor, positions: Tensor) -> Any:
        """Return the images of a batch, some of them mirrored if `alternate` is set.

        Args:
            part: index of the part.
            indices: (B,) indices of the images in the part.
            positions: (B,) indices of the same images in the whole dataset.
        """
        images = self.parts[part][indices]
        if not self.alternate:
            return images
        mirrored = self.is_mirrored(positions)[:, None, None, None]
        return torch.where(mirrored, images.flip(-1), images)

    def is_mirrored(self, positions: Tensor) -> Tensor:
        """Return (B,): whether `alternate` mirrors the image at each position in this epoch."""
        return (self._is_mirrored_first[positions] + self.get_epoch()) % 2 == 1

    def _batch_size(self, part: int) -> int:
        """Return the maximum number of images per batch of a part."""
        if len(self.parts) == 1:
            return self.batch_size
        return max(1, min(self.batch_size, PIXELS // self.image_cost(part)))

    def _order(self) -> list[tuple[int, Tensor]]:
        """Return the batches of an epoch, each as a part and the indices (B,) of images in it."""
        counts = [self.image_count(part) for part in range(len(self.parts))]
        sizes = [self._batch_size(part) for part in range(len(self.parts))]
        if self.seed is None:
            return _split([torch.arange(count) for count in counts], sizes)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.get_epoch())
        if len(self.parts) == 1:  # drops the last batch if it is smaller
            return _permuted_batches(counts, sizes, generator)[: len(self)]
        return shuffled_batches(counts, sizes, generator)

    @cached_property
    def _starts(self) -> list[int]:
        """Index of each part's first image in the dataset, then the number of images."""
        return starts_of([self.image_count(part) for part in range(len(self.parts))])

    @cached_property
    def _is_mirrored_first(self) -> Tensor:
        """(N,): 1 for images that `alternate` mirrors in the first epoch, 0 for the others.

        The seed determines it, so that it is the same in all processes and after resuming.
        """
        generator = torch.Generator().manual_seed(self.seed or 0)
        return torch.randint(2, self.labels.shape, generator=generator)


def shuffled_batches(
    counts: Sequence[int], sizes: Sequence[int], generator: torch.Generator | None = None
) -> list[tuple[int, Tensor]]:
    """Return random batches in random order, each as a part and the indices (B,) of images in it.

    Args:
        counts: number of images of each part.
        sizes: maximum number of images per batch of each part.
        generator: random generator; None for torch's global one.
    """
    batches = _permuted_batches(counts, sizes, generator)
    return [batches[index] for index in torch.randperm(len(batches), generator=generator)]


def starts_of(counts: Sequence[int]) -> list[int]:
    """Return the index of each part's first image in the dataset, then the number of images."""
    return list(accumulate(counts, initial=0))


def _permuted_batches(
    counts: Sequence[int], sizes: Sequence[int], generator: torch.Generator | None
) -> list[tuple[int, Tensor]]:
    """Return random batches of each part, ordered by part."""
    return _split([torch.randperm(count, generator=generator) for count in counts], sizes)


def _split(orders: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Return batches of at most `sizes` consecutive images of each part, ordered by part.

    Args:
        orders: for each part, the indices of its images in the order of the batches.
        sizes: maximum number of images per batch of each part.
    """
    pairs = enumerate(zip(orders, sizes, strict=True))
    return [(part, batch) for part, (order, size) in pairs for batch in order.split(size)]


def _rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
