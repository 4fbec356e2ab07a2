"""Annotated regions as the ground truth of localisation metrics.

A localisation metric measures how well the evidence of an explanation matches the region of an
image that matters according to a mask.
"""

from collections.abc import Callable

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.metric import ExplanationMetric
from foveal.metrics.subject import Given


def check_truth(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return the annotated regions as booleans (B, H, W).

    Args:
        explanation: explanation of B images of H x W pixels.
        truth: (B, H, W) or (B, 1, H, W), above 0 in the annotated region; any dtype, such as the
            uint8 of `ImageSet.masks`.

    Raises:
        ValueError: the shapes do not match.
    """
    masks = truth[:, 0] if truth.ndim == 4 and truth.shape[1] == 1 else truth
    expected = (len(explanation), *explanation.size)
    if tuple(masks.shape) != expected:
        raise ValueError(
            f"Expected masks {expected}, like the explained images, but got {tuple(truth.shape)}."
        )
    return masks > 0


def fraction_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Return for each image (B,) the fraction of the values inside a region; NaN if it is empty.

    Args:
        values: (B, H, W), non-negative numbers or booleans.
        inside: (B, H, W) booleans, as returned by `check_truth`.
    """
    fractions = (values * inside).sum(dim=(-2, -1)) / values.sum(dim=(-2, -1))
    return fractions.masked_fill(~inside.any(dim=-1).any(dim=-1), float("nan"))


def localisation(
    column: Column, measure: Callable[[Explanation, Tensor], Tensor]
) -> ExplanationMetric:
    """Return the metric of a column that compares explanations with annotated regions.

    Args:
        column: column of the metric, whose key is also the name of the metric.
        measure: function from an explanation of B images, with maps or patches, and their masks
            (B, H, W) or (B, 1, H, W), above 0 in the annotated region, to values (B,), which are
            NaN for an empty region.
    """
    return ExplanationMetric(
        column.key,
        lambda batch: {column.key: measure(batch.explanation, batch.truth)},
        (column,),
        needs=frozenset({Given.MASKS}),
    )
