"""Confidence intervals of accuracies and of their differences."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

_Z = 1.959964  # of the normal distribution, for 95 %


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval, from 0 to 1, of the accuracy that `right` of `total` stand for.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference": it stays
    within 0 and 1 and is honest for a handful of images.

    Args:
        right: right answers.
        total: images, at least 1.

    Example:
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    share, square = right / total, _Z * _Z
    middle = (share + square / (2 * total)) / (1 + square / total)
    half = _Z / (1 + square / total) * sqrt(share * (1 - share) / total + square / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


RESAMPLES = 4000
_AT_ONCE = 500  # resamples; bounds the memory


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    right: Tensor,
    labels: Tensor,
    *,
    groups: Sequence[str] = (),
    balanced: bool = False,
    seed: int = 0,
) -> Interval:
    """Return the mean of what is known of images, with the interval of a bootstrap over groups.

    Differences are paired where `right` is one itself: of each image, one model's answer minus the
    other's (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13, percentiles).

    Args:
        right: (N,), 1 where an answer is right and 0 where it is wrong, or the difference of two.
        labels: (N,) class indices.
        groups: of images that belong together and are drawn together; none where each is its own.
        balanced: the mean over the classes that there are, not over the images.
        seed: of the drawing.
    """
    names = {name: number for number, name in enumerate(sorted(set(groups)))}
    unit = torch.tensor([names[name] for name in groups]) if groups else torch.arange(len(right))
    column = labels if balanced else torch.zeros_like(labels)
    _, column = column.unique(return_inverse=True)
    shape = (int(unit.max()) + 1, int(column.max()) + 1)
    sums, counts = torch.zeros(shape, dtype=torch.double), torch.zeros(shape, dtype=torch.double)
    sums.index_put_((unit, column), right.double(), accumulate=True)
    counts.index_put_((unit, column), torch.ones(len(right), dtype=torch.double), accumulate=True)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        drawn = torch.randint(shape[0], (_AT_ONCE, shape[0]), generator=generator)
        times = torch.zeros(_AT_ONCE, shape[0], dtype=torch.double)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.double))
        found = (times @ sums) / (times @ counts)  # a class that was not drawn says nothing
        means.append(found.nanmean(dim=1))
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.double))
    value = (sums.sum(dim=0) / counts.sum(dim=0)).mean()
    return Interval(float(value), float(low), float(high))
