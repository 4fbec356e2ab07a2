"""Annotated regions: their check, and metrics that compare explanations with them."""

from collections.abc import Callable

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.metric import ExplanationMetric
from foveal.metrics.subject import Given


def check_truth(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return the truth as booleans (B, H, W).

    Args:
        explanation: of B images of H x W pixels.
        truth: (B, H, W) or (B, 1, H, W), above 0 where it is; bytes as in `ImageSet.masks` too.

    Raises:
        ValueError: it is of another number or size of images.
    """
    flat = truth[:, 0] if truth.ndim == 4 and truth.shape[1] == 1 else truth
    expected = (len(explanation), *explanation.size)
    if tuple(flat.shape) != expected:
        raise ValueError(
            f"Expected a truth {expected}, as the explained images are, but got "
            f"{tuple(truth.shape)}."
        )
    return flat > 0


def fraction_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Return for each image (B,) the fraction of values that lies inside; NaN if nothing does.

    Args:
        values: (B, H, W), none negative; of booleans, their number counts.
        inside: (B, H, W) booleans, as `check_truth` returns them.
    """
    found = (values * inside).sum(dim=(-2, -1)) / values.sum(dim=(-2, -1))
    return found.masked_fill(~inside.any(dim=-1).any(dim=-1), float("nan"))


def localisation(
    column: Column, measure: Callable[[Explanation, Tensor], Tensor]
) -> ExplanationMetric:
    """Return the metric of a column that compares explanations with annotated regions.

    Args:
        column: by whose key the metric is named.
        measure: explanation of B images, with maps or patches, and truth (B, H, W) or
            (B, 1, H, W), above 0 in the annotated region -> values (B,), NaN where that is empty.
    """
    return ExplanationMetric(
        column.key,
        lambda batch: {column.key: measure(batch.explanation, batch.truth)},
        (column,),
        needs=frozenset({Given.MASKS}),
    )
