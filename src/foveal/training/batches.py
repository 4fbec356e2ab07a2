"""Batches of images or features, in an order that depends only on the seed and the epoch."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from foveal.images.photos import PIXELS, Photos, parts_of


class Batches:
    """Yields (images, labels) batches of uint8 images in memory.

    All photographs in a batch have the same size, so some batches are smaller.

    Args:
        images: uint8 images (N, C, H, W), or photographs.
        labels: (N,) class indices.
        batch_size: images per batch, over all processes.
        seed: random seed of the order; None keeps the order and the last, smaller batch.
        epoch: returns the current epoch; called when an epoch starts. Each epoch has its own order.
        alternate: whether to mirror each image left to right every other epoch, half of them
            starting with the first epoch.
    """

    def __init__(
        self,
        images: Tensor | Photos,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
        alternate: bool = False,
    ):
        self.parts: Sequence[Tensor] = parts_of(images)
        self.labels = labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        self.epoch = epoch
        self.alternate = alternate

    def __len__(self) -> int:
        if len(self.parts) == 1 and self.seed is not None:
            return len(self.labels) // self._batch_size(0)
        return sum(
            -(-self.count(part) // self._batch_size(part)) for part in range(len(self.parts))
        )

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        rank, world = _rank_and_world_size()
        for part, batch in self._order():
            indices = batch[rank::world] if len(batch) >= world else batch
            positions = indices + self._starts[part]
            yield self.take(part, indices, positions), self.labels[positions]

    def count(self, part: int) -> int:
        """Return the number of images of a part."""
        return len(self.parts[part])

    def pixels(self, part: int) -> int:
        """Return the number of pixels of each image of a part."""
        return self.parts[part].shape[-2] * self.parts[part].shape[-1]

    def take(self, part: int, indices: Tensor, positions: Tensor) -> Any:
        """Return a batch.

        Args:
            part: index of the part.
            indices: (B,) indices of the images in the part.
            positions: (B,) indices of the images in the whole dataset.
        """
        images = self.parts[part][indices]
        if not self.alternate:
            return images
        mirrored = self.is_mirrored(positions)[:, None, None, None]
        return torch.where(mirrored, images.flip(-1), images)

    def is_mirrored(self, positions: Tensor) -> Tensor:
        """Return whether `alternate` mirrors each of the images (B,) in this epoch."""
        return (self._starts_mirrored[positions] + self.epoch()) % 2 == 1

    def _batch_size(self, part: int) -> int:
        if len(self.parts) == 1:
            return self.batch_size
        return max(1, min(self.batch_size, PIXELS // self.pixels(part)))

    def _order(self) -> list[tuple[int, Tensor]]:
        """Return the part and the indices (B,) of each batch."""
        counts = [self.count(part) for part in range(len(self.parts))]
        sizes = [self._batch_size(part) for part in range(len(self.parts))]
        if self.seed is None:
            return _split([torch.arange(count) for count in counts], sizes)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
        if len(self.parts) == 1:  # without the last, smaller batch
            return _permuted_batches(counts, sizes, generator)[: len(self)]
        return shuffled_batches(counts, sizes, generator)

    @cached_property
    def _starts(self) -> list[int]:
        return starts_of([self.count(part) for part in range(len(self.parts))])

    @cached_property
    def _starts_mirrored(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed or 0)
        return torch.randint(2, self.labels.shape, generator=generator)


def shuffled_batches(
    counts: Sequence[int], sizes: Sequence[int], generator: torch.Generator | None = None
) -> list[tuple[int, Tensor]]:
    """Return batches in random order; each is a part and the indices (B,) of images in it.

    Args:
        counts: number of images of each part.
        sizes: maximum batch size for each part.
        generator: random generator; None for torch's own.
    """
    batches = _permuted_batches(counts, sizes, generator)
    return [batches[index] for index in torch.randperm(len(batches), generator=generator)]


def starts_of(counts: Sequence[int]) -> list[int]:
    """Return the index of each part's first image in the dataset, then the number of images."""
    return list(accumulate(counts, initial=0))


def _permuted_batches(
    counts: Sequence[int], sizes: Sequence[int], generator: torch.Generator | None
) -> list[tuple[int, Tensor]]:
    """Return batches of the randomly permuted images of each part, part by part."""
    return _split([torch.randperm(count, generator=generator) for count in counts], sizes)


def _split(orders: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Divide the indices of each part into batches of at most its batch size."""
    pairs = enumerate(zip(orders, sizes, strict=True))
    return [(part, batch) for part, (order, size) in pairs for batch in order.split(size)]


def _rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
