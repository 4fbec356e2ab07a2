"""Reproducible random splits and folds, stratified by class.

Stratified means that each part contains about the same fraction of every class.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
# Validation images of a named dataset, or a tenth of its training images if that is less.
VAL_IMAGES = 5_000
TENTHS = 10


def stratified(labels: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return `count` random indices, sorted, with about the same fraction of each class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    by_class = order[torch.argsort(labels[order], stable=True)]
    # Equal steps through the images sorted by class sample each class in proportion to its size.
    positions = ((torch.arange(count) + 0.5) * len(labels) / max(count, 1)).long()
    return by_class[positions].sort().values


def complement(total: int, taken: Tensor) -> Tensor:
    """Return the sorted indices from 0 to `total` - 1 that are not in `taken`."""
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
        complete: index of a fold that gets the largest group of each class, so that it contains
            every class; None for no such fold.
    """
    group_indices, counts = _class_counts(labels, groups)
    group_count, classes = counts.shape
    fractions = counts / counts.sum(dim=0).clamp_min(1)
    shuffled = torch.randperm(group_count, generator=torch.Generator().manual_seed(seed))
    # Large groups first, groups of equal size in random order.
    order = shuffled[counts[shuffled].sum(dim=1).argsort(descending=True, stable=True)]
    filled = torch.zeros(count, classes, dtype=torch.double)
    fold_of_group = torch.zeros(group_count, dtype=torch.long)
    missing = counts.sum(dim=0) > 0  # classes that the complete fold lacks
    for group in order.tolist():
        present = counts[group] > 0
        if complete is not None and (missing & present).any():
            fold = complete
            missing = missing & ~present
        else:
            fold = _least_filled(filled, fractions[group])
        fold_of_group[group] = fold
        filled[fold] += fractions[group]
    return fold_of_group[group_indices]


def _class_counts(labels: Tensor, groups: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the group index (N,) of each image, and its number of images (groups, classes).

    Without groups, each image is its own group.
    """
    names = sorted(set(groups))
    if groups:
        index_of = {name: index for index, name in enumerate(names)}
        group_indices = torch.tensor([index_of[name] for name in groups])
        group_count = len(names)
    else:
        group_indices = torch.arange(len(labels))
        group_count = len(labels)
    classes = int(labels.max()) + 1 if len(labels) else 1
    counts = torch.zeros(group_count, classes, dtype=torch.double)
    ones = torch.ones(len(labels), dtype=torch.double)
    counts.index_put_((group_indices, labels), ones, accumulate=True)
    return group_indices, counts


def _least_filled(filled: Tensor, fractions: Tensor) -> int:
    """Return the fold that contains the smallest fraction of the classes of a group.

    Of several, the one that contains the smallest fraction of all classes is returned.

    Args:
        filled: (folds, classes) fraction of each class that is in each fold.
        fractions: (classes,) fraction of each class that is in the group.
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
    """Return the sorted indices of a split that is drawn from a single set of images.

    A tenth of each class, rounded up, is held out for testing and as many for validation, unless
    these splits have their own images; the rest is for training. Classes of fewer than three
    images are only used for training, so that every tested class has training images.

    Args:
        labels: (N,) class indices.
        split: `train`, `val` or `test`.
        own_val: whether other images are used for validation, so that none are held out for it.
        own_test: whether other images are used for testing, so that none are held out for it.
        groups: group of each image; groups are not divided, so the tenths are approximate.
    """
    if groups:
        fold = folds(labels, TENTHS, groups, complete=TENTHS - 1)
        is_test = torch.zeros_like(fold, dtype=torch.bool) if own_test else fold == 0
        is_val = torch.zeros_like(is_test) if own_val else fold == 1
        parts = {"test": is_test, "val": is_val, "train": ~is_test & ~is_val}
        return parts[split].nonzero().flatten()
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    indices: dict[str, list[Tensor]] = {"test": [], "val": [], "train": []}
    for label in labels.unique():
        class_indices = order[labels[order] == label]
        tenth = -(-len(class_indices) // TENTHS) if len(class_indices) >= 3 else 0
        test_count = 0 if own_test else tenth
        val_count = 0 if own_val else tenth
        parts_of_class = class_indices.tensor_split([test_count, test_count + val_count])
        for name, part in zip(indices, parts_of_class, strict=True):
            indices[name].append(part)
    return torch.cat([torch.empty(0, dtype=torch.long), *indices[split]]).sort().values
