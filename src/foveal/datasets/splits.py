"""Reproducible splits and folds, drawn from the labels with a seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
VAL_IMAGES = 5_000  # validation images of a named dataset; a tenth of the training set if less


def stratified(labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return `count` sorted indices, about the same fraction of each class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[torch.argsort(labels[order], stable=True)]
    # Equal steps through the list sorted by class sample each class in proportion.
    positions = ((torch.arange(count) + 0.5) * len(labels) / max(count, 1)).long()
    return by_class[positions].sort().values


def rest(total: int, taken: Tensor) -> Tensor:
    """Return the sorted indices below `total` that are not in `taken`."""
    remaining = torch.ones(total, dtype=torch.bool)
    remaining[taken] = False
    return remaining.nonzero().flatten()


def folds(
    labels: Tensor,
    count: int,
    groups: Sequence[str] = (),
    *,
    seed: int = 0,
    complete: int | None = None,
) -> Tensor:
    """Return the fold (N,) of each image, from 0, with about the same fraction of every class.

    Args:
        labels: (N,) class indices.
        count: number of folds.
        groups: group of each image; groups stay in one fold. Empty if each image is its own group.
        seed: seed of the random order.
        complete: a fold that gets the largest group of each class, so that it contains every class.
    """
    group_of, counts = _class_counts(labels, groups)
    total, classes = counts.shape
    fractions = counts / counts.sum(dim=0).clamp_min(1)
    shuffled = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    order = shuffled[counts[shuffled].sum(dim=1).argsort(descending=True, stable=True)]
    filled = torch.zeros(count, classes, dtype=torch.double)
    fold = torch.zeros(total, dtype=torch.long)
    missing = (
        counts.sum(dim=0) > 0 if complete is not None else torch.zeros(classes, dtype=torch.bool)
    )
    for group in order.tolist():
        present = counts[group] > 0
        if complete is not None and (missing & present).any():
            chosen = complete
            missing = missing & ~present
        else:
            chosen = _least_filled(filled, fractions[group])
        fold[group] = chosen
        filled[chosen] += fractions[group]
    return fold[group_of]


def _class_counts(labels: Tensor, groups: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the group index (N,) of each image, and the images per group and class."""
    names = sorted(set(groups))
    index = {name: number for number, name in enumerate(names)}
    group = torch.tensor([index[name] for name in groups]) if groups else torch.arange(len(labels))
    total = len(names) if groups else len(labels)
    classes = int(labels.max()) + 1 if len(labels) else 1
    counts = torch.zeros(total, classes, dtype=torch.double)
    counts.index_put_((group, labels), torch.ones(len(labels), dtype=torch.double), accumulate=True)
    return group, counts


def _least_filled(filled: Tensor, fractions: Tensor) -> int:
    """Return the fold with the smallest fraction of a group's classes, then of all classes.

    Args:
        filled: (folds, classes) fraction of each class in each fold.
        fractions: (classes,) fraction of each class in the group.
    """
    return min(
        range(len(filled)),
        key=lambda fold: (
            round(float((filled[fold] * fractions).sum()), 12),
            round(float(filled[fold].sum()), 12),
        ),
    )


def split_indices(
    labels: Tensor, split: str, *, own_val: bool, own_test: bool, groups: Sequence[str] = ()
) -> Tensor:
    """Return the sorted indices of a split drawn from a single set of images.

    A tenth of each class, rounded up, is held out for testing and as many for validation, unless
    these splits have their own images; the rest is for training. Classes of fewer than three
    images are only used for training, so that every tested class has training images. Groups
    are not divided: the tenths are then approximate.
    """
    if groups:
        fold = folds(labels, 10, groups, complete=9)
        is_test = torch.zeros_like(fold, dtype=torch.bool) if own_test else fold == 0
        is_val = torch.zeros_like(is_test) if own_val else fold == 1
        parts = {"test": is_test, "val": is_val, "train": ~is_test & ~is_val}
        return parts[split].nonzero().flatten()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    indices: dict[str, list[Tensor]] = {"test": [], "val": [], "train": []}
    for label in labels.unique():
        of_class = order[labels[order] == label]
        tenth = -(-len(of_class) // 10) if len(of_class) >= 3 else 0
        test = 0 if own_test else tenth
        val = 0 if own_val else tenth
        for name, part in zip(indices, of_class.tensor_split([test, test + val]), strict=True):
            indices[name].append(part)
    return torch.cat([torch.empty(0, dtype=torch.long), *indices[split]]).sort().values
