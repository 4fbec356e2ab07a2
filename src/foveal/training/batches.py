"""Batches of images or features, in an order that only the seed and the epoch decide."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foveal.images.photos import PIXELS, Photos, parts_of


class Batches:
    """Yields (images, labels) batches of uint8 from images in memory.

    A batch of photographs holds one size alone, so that there are smaller batches too.

    Args:
        images: (N, C, H, W) of uint8, or photographs.
        labels: (N,) class indices.
        batch_size: images in a batch, over all processes.
        seed: of the order; None keeps the order and the last, smaller batch.
        epoch: called when an epoch starts; each epoch has an order of its own.
        alternate: mirror each image left to right every other epoch, half of them from the first
            on.
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
            return len(self.labels) // self._most(0)
        return sum(-(-self.count(part) // self._most(part)) for part in range(len(self.parts)))

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        rank, world = _process()
        for part, batch in self._order():
            own = batch[rank::world] if len(batch) >= world else batch
            every = own + self._starts[part]
            yield self.take(part, own, every), self.labels[every]

    def count(self, part: int) -> int:
        """Return how many images a part has."""
        return len(self.parts[part])

    def pixels(self, part: int) -> int:
        """Return the pixels of each image of a part."""
        return self.parts[part].shape[-2] * self.parts[part].shape[-1]

    def take(self, part: int, indices: Tensor, every: Tensor) -> Any:
        """Return a batch.

        Args:
            part: index of the part.
            indices: (B,) of the images among those of the part.
            every: (B,) of the images among all.
        """
        images = self.parts[part][indices]
        if not self.alternate:
            return images
        return torch.where(self.mirrored(every)[:, None, None, None], images.flip(-1), images)

    def mirrored(self, every: Tensor) -> Tensor:
        """Return for images (B,) among all whether `alternate` mirrors them in this epoch."""
        return (self._starts_mirrored[every] + self.epoch()) % 2 == 1

    def _most(self, part: int) -> int:
        if len(self.parts) == 1:
            return self.batch_size
        return max(1, min(self.batch_size, PIXELS // self.pixels(part)))

    def _order(self) -> list[tuple[int, Tensor]]:
        """Return the part and the indices (B,) of each batch."""
        parts = range(len(self.parts))
        if self.seed is None:
            orders = [torch.arange(self.count(part)) for part in parts]
            return _cut(orders, [self._most(part) for part in parts])
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
        orders = [torch.randperm(self.count(part), generator=generator) for part in parts]
        batches = _cut(orders, [self._most(part) for part in parts])
        if len(self.parts) == 1:
            return batches[: len(self)]
        return [batches[index] for index in torch.randperm(len(batches), generator=generator)]

    @cached_property
    def _starts(self) -> list[int]:
        counts = torch.tensor([0, *(self.count(part) for part in range(len(self.parts)))])
        return counts.cumsum(dim=0).tolist()

    @cached_property
    def _starts_mirrored(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed or 0)
        return torch.randint(2, self.labels.shape, generator=generator)


def _cut(orders: Sequence[Tensor], most: Sequence[int]) -> list[tuple[int, Tensor]]:
    """Return the indices of each part in batches of at most so many."""
    pairs = enumerate(zip(orders, most, strict=True))
    return [(part, batch) for part, (order, count) in pairs for batch in order.split(count)]


def _process() -> tuple[int, int]:
    """Return this process's number and how many there are."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
