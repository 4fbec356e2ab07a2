"""Splits that depend on the labels and a seed alone."""

import torch
from torch import Tensor


def stratified(labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return about `count` indices, the same share of each class, sorted.

    The classes' remainders go to the greatest, so that the sum is exactly `count`.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[torch.argsort(labels[order], stable=True)]
    # Every k-th image of the list sorted by class holds each class' share.
    places = ((torch.arange(count) + 0.5) * len(labels) / max(count, 1)).long()
    return by_class[places].sort().values


def rest(total: int, taken: Tensor) -> Tensor:
    """Return the indices below `total` that are not taken, sorted."""
    free = torch.ones(total, dtype=torch.bool)
    free[taken] = False
    return free.nonzero().flatten()
