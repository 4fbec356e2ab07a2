"""Batches from images in memory, in an order that only the seed and the epoch decide."""

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor


class Batches:
    """Yields (images, labels) batches of bytes from tensors in memory.

    Args:
        images: (N, C, H, W) bytes.
        labels: (N,) class numbers.
        batch_size: images in a batch, over all processes.
        seed: of the order; None keeps the order and the last, smaller batch.
        epoch: called when an epoch starts; each epoch has an order of its own.
        alternate: mirror each image left to right every other epoch, half of them from the first
            on.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
        alternate: bool = False,
    ):
        self.images = images
        self.labels = labels
        self.batch_size = min(batch_size, len(labels))
        self.seed = seed
        self.epoch = epoch
        self.alternate = alternate

    def __len__(self) -> int:
        whole, rest = divmod(len(self.labels), self.batch_size)
        return whole if self.seed is not None else whole + (rest > 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        rank, world = _process()
        if self.seed is None:
            order = torch.arange(len(self.labels))
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch())
            order = torch.randperm(len(self.labels), generator=generator)
        for index in range(len(self)):
            batch = order[index * self.batch_size : (index + 1) * self.batch_size]
            part = batch[rank::world] if len(batch) >= world else batch
            yield self._mirror(self.images[part], part), self.labels[part]

    def _mirror(self, images: Tensor, indices: Tensor) -> Tensor:
        if not self.alternate:
            return images
        mirrored = (self._starts_mirrored[indices] + self.epoch()) % 2 == 1
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    @cached_property
    def _starts_mirrored(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed or 0)
        return torch.randint(2, self.labels.shape, generator=generator)


def _process() -> tuple[int, int]:
    """Return this process's number and how many there are."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
