"""Confidence intervals of accuracies and of their differences."""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

_Z = 1.959964  # 97.5% quantile of the standard normal distribution


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% confidence interval, from 0 to 1, of an accuracy of `correct` / `total`.

    It is the interval of Wilson 1927, "Probable inference, the law of succession, and statistical
    inference", which lies within 0 and 1 and is reliable even for few images.

    Args:
        correct: number of correct predictions.
        total: number of images, at least 1.

    Example:
        >>> low, high = wilson_interval(9, 10)
        >>> round(low, 3), round(high, 3)
        (0.596, 0.982)
    """
    rate, z2 = correct / total, _Z * _Z
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    margin = _Z / (1 + z2 / total) * sqrt(rate * (1 - rate) / total + z2 / (4 * total**2))
    return max(0.0, centre - margin), min(1.0, centre + margin)


RESAMPLES = 4000  # number of bootstrap resamples
_CHUNK = 500  # resamples at a time; bounds the memory


class Interval(NamedTuple):
    """A value with its 95% confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(
    values: Tensor,
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
        values: (N,), 1 for a correct and 0 for a wrong prediction, or the difference of two models.
        labels: (N,) class indices.
        groups: group of each image, resampled as a whole. Empty if each image is its own group.
        balanced: average over the classes that occur instead of over the images.
        seed: seed of the resampling.
    """
    index_of = {name: index for index, name in enumerate(sorted(set(groups)))}
    rows = torch.tensor([index_of[key] for key in groups]) if groups else torch.arange(len(values))
    classes = labels if balanced else torch.zeros_like(labels)  # all images in one class
    _, columns = classes.unique(return_inverse=True)
    group_count = int(rows.max()) + 1
    sums = torch.zeros(group_count, int(columns.max()) + 1, dtype=torch.double)
    counts = torch.zeros_like(sums)
    sums.index_put_((rows, columns), values.double(), accumulate=True)
    counts.index_put_((rows, columns), torch.ones(len(values)).double(), accumulate=True)
    generator = torch.Generator().manual_seed(seed)
    means = []
    for _ in range(0, RESAMPLES, _CHUNK):
        choices = torch.randint(group_count, (_CHUNK, group_count), generator=generator)
        repeats = torch.zeros(_CHUNK, group_count, dtype=torch.double)
        repeats.scatter_add_(1, choices, torch.ones_like(choices, dtype=torch.double))
        resampled = (repeats @ sums) / (repeats @ counts)  # NaN for a class that was not drawn
        means.append(resampled.nanmean(dim=1))
    low, high = torch.cat(means).quantile(torch.tensor([0.025, 0.975], dtype=torch.double))
    value = (sums.sum(dim=0) / counts.sum(dim=0)).mean()
    return Interval(float(value), float(low), float(high))
