"""How sure an accuracy is, measured on so many images."""

from math import sqrt

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
