"""Results of a cross-validation, and their report."""

from dataclasses import dataclass

from foveal.metrics.interval import Interval


@dataclass(frozen=True)
class CrossValidation:
    """Results of a cross-validation: accuracies over all images, with 95% intervals.

    Each image is classified by a model that was trained without it. The models of the recipe are
    compared with a linear layer on the same frozen backbone, if the recipe stores features
    (`training.cache`); otherwise, the four results of the comparison are None.

    Attributes:
        accuracy: accuracy of the recipe's models.
        balanced: mean per-class accuracy of the recipe's models.
        linear: accuracy of the linear layer, or None.
        linear_balanced: mean per-class accuracy of the linear layer, or None.
        gain: paired difference of the accuracies, recipe minus linear layer, or None.
        balanced_gain: paired difference of the mean per-class accuracies, or None.
        by_fold: accuracy of the recipe's models in each fold.
        images: number of images.
        groups: number of groups, each of which was kept in one fold; 0 if images have no groups.
    """

    accuracy: Interval
    balanced: Interval
    linear: Interval | None
    linear_balanced: Interval | None
    gain: Interval | None
    balanced_gain: Interval | None
    by_fold: tuple[float, ...]
    images: int
    groups: int


def lines(results: CrossValidation) -> list[str]:
    """Return the results as lines of text."""
    text = [
        f"{results.images:,} images in {len(results.by_fold)} folds"
        + (f" of {results.groups:,} groups" if results.groups else "")
        + f": accuracy {_percent(results.accuracy)}, "
        + f"mean per-class accuracy {_percent(results.balanced)}"
    ]
    if results.linear is not None and results.linear_balanced is not None:
        text.append(
            f"  a linear layer on the frozen backbone: {_percent(results.linear)}, mean per-class "
            f"accuracy {_percent(results.linear_balanced)}"
        )
    if results.gain is not None and results.balanced_gain is not None:
        text.append(
            f"  paired difference: {_points(results.gain)}, mean per-class accuracy "
            f"{_points(results.balanced_gain)}"
        )
    return text


def _percent(interval: Interval) -> str:
    value, low, high = (100 * fraction for fraction in interval)
    return f"{value:.1f}% (95% interval {low:.1f} to {high:.1f})"


def _points(interval: Interval) -> str:
    value, low, high = (100 * fraction for fraction in interval)
    return f"{value:+.1f} points (95% interval {low:+.1f} to {high:+.1f})"
