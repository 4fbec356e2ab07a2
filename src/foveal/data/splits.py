"""Splits that depend on the labels and a seed alone."""

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
VAL_IMAGES = 5_000  # of a named dataset's training images, or a tenth where that is less


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


def share_of(labels: Tensor, split: str, *, own_val: bool, own_test: bool) -> Tensor:
    """Return the indices of a split of images that come as one, sorted.

    A tenth of each class, rounded up, tests and as many validate, as far as these splits have no
    images of their own; the rest trains. A class of fewer than three images only trains, so that
    no class is asked for that was never learned.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    held: dict[str, list[Tensor]] = {"test": [], "val": [], "train": []}
    for label in labels.unique():
        own = order[labels[order] == label]
        tenth = -(-len(own) // 10) if len(own) >= 3 else 0
        test = 0 if own_test else tenth
        val = 0 if own_val else tenth
        for name, part in zip(held, own.tensor_split([test, test + val]), strict=True):
            held[name].append(part)
    return torch.cat([torch.empty(0, dtype=torch.long), *held[split]]).sort().values
