"""Confidence intervals of accuracies and of their differences."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

_Z = 1.959964  # 97.5% quantile of the normal distribution


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95% confidence interval, from 0 to 1, of an accuracy of `right` / `total`.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference": it stays
    within 0 and 1 and is reliable for few images.

    Args:
        right: number of correct predictions.
        total: number of images, at least 1.

    Example:
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    rate, square = right / total, _Z * _Z
    centre = (rate + square / (2 * total)) / (1 + square / total)
    half = _Z / (1 + square / total) * sqrt(rate * (1 - rate) / total + square / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


RESAMPLES = 4000
_AT_ONCE = 500  # resamples at a time; bounds the memory


class Interval(NamedTuple):
    """A value with its 95% confidence interval."""

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
    """Return the mean of a value per image, with a percentile bootstrap interval over groups.

    If the values are differences of two models, the comparison is paired (Efron & Tibshirani 1993,
    "An Introduction to the Bootstrap", chapter 13).

    Args:
        right: (N,), 1 for a correct and 0 for a wrong prediction, or the difference of two models.
        labels: (N,) class indices.
        groups: group of each image; groups are resampled as a whole. Empty if each image is its
            own group.
        balanced: average over the classes that occur instead of over the images.
        seed: seed of the resampling.
    """
    index = {name: number for number, name in enumerate(sorted(set(groups)))}
    unit = torch.tensor([index[name] for name in groups]) if groups else torch.arange(len(right))
    column = labels if balanced else torch.zeros_like(labels)
    _, column = column.unique(return_inverse=True)
    shape = (int(unit.max()) + 1, int(column.max()) + 1)
    sums, counts = torch.zeros(shape, dtype=torch.double), torch.zeros(shape, dtype=torch.double)
    sums.index_put_((unit, column), right.double(), accumulate=True)
    counts.index_put_((unit, column), torch.ones(len(right), dtype=torch.double), accumulate=True)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(0, RESAMPLES, _AT_ONCE):
        choices = torch.randint(shape[0], (_AT_ONCE, shape[0]), generator=generator)
        repeats = torch.zeros(_AT_ONCE, shape[0], dtype=torch.double)
        repeats.scatter_add_(1, choices, torch.ones_like(choices, dtype=torch.double))
        resampled = (repeats @ sums) / (repeats @ counts)  # NaN for a class that was not drawn
        means.append(resampled.nanmean(dim=1))
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.double))
    value = (sums.sum(dim=0) / counts.sum(dim=0)).mean()
    return Interval(float(value), float(low), float(high))
