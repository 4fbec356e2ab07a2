"""Splits that depend on the labels and a seed alone."""

from collections.abc import Sequence

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


def folds(
    labels: Tensor,
    count: int,
    groups: Sequence[str] = (),
    *,
    seed: int = 0,
    kept: int | None = None,
) -> Tensor:
    """Return the fold (N,) of each image, from 0: each has about the same part of every class.

    Args:
        labels: (N,) class indices.
        count: folds.
        groups: name of each image's group, which stays in one fold; none where each is its own.
        seed: of the drawing.
        kept: a fold that gets the largest group of each class, so that no class is without it.
    """
    names = sorted(set(groups))
    index = {name: number for number, name in enumerate(names)}
    own = torch.tensor([index[name] for name in groups]) if groups else torch.arange(len(labels))
    total = len(names) if groups else len(labels)
    classes = int(labels.max()) + 1 if len(labels) else 1
    counts = torch.zeros(total, classes, dtype=torch.double)
    counts.index_put_((own, labels), torch.ones(len(labels), dtype=torch.double), accumulate=True)
    shares = counts / counts.sum(dim=0).clamp_min(1)
    drawn = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    order = drawn[counts[drawn].sum(dim=1).argsort(descending=True, stable=True)]
    filled = torch.zeros(count, classes, dtype=torch.double)
    fold = torch.zeros(total, dtype=torch.long)
    missing = counts.sum(dim=0) > 0 if kept is not None else torch.zeros(classes, dtype=torch.bool)
    for group in order.tolist():
        share, sizes = shares[group], counts[group]
        present = sizes > 0
        if kept is not None and (missing & present).any():
            chosen = kept
            missing = missing & ~present
        else:
            # Where these classes have least so far; of equal folds, where all classes have.
            chosen = min(
                range(count),
                key=lambda f: (
                    round(float((filled[f] * share).sum()), 12),
                    round(float(filled[f].sum()), 12),
                ),
            )
        fold[group] = chosen
        filled[chosen] += share
    return fold[own]


def share_of(
    labels: Tensor, split: str, *, own_val: bool, own_test: bool, groups: Sequence[str] = ()
) -> Tensor:
    """Return the indices of a split of images that come as one, sorted.

    A tenth of each class, rounded up, tests and as many validate, as far as these splits have no
    images of their own; the rest trains. A class of fewer than three images only trains, so that
    no class is asked for that was never learned. Groups stay whole: then a tenth is about that.
    """
    if groups:
        fold = folds(labels, 10, groups, kept=9)
        tests = torch.zeros_like(fold, dtype=torch.bool) if own_test else fold == 0
        validates = torch.zeros_like(tests) if own_val else fold == 1
        parts = {"test": tests, "val": validates, "train": ~tests & ~validates}
        return parts[split].nonzero().flatten()
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
