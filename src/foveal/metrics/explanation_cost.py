"""Cost of explanations: forward passes and time per image."""

import torch
from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.metric import About, ExplanationMetric
from foveal.metrics.subject import Explained


def _measure(batch: Explained) -> dict[str, Tensor]:
    """Return the cost and the duration per image of a batch, the same (B,) for each image."""
    count = len(batch.test)
    values = {
        "cost_forward_passes": batch.explanation.cost,
        "ms_per_image": 1000 * batch.seconds / count,
    }
    return {key: torch.full((count,), value, dtype=torch.double) for key, value in values.items()}


EXPLANATION_COST = ExplanationMetric(
    "explanation_cost",
    _measure,
    (
        Column(
            "cost_forward_passes",
            "forward passes",
            "{:.1f}",
            "multiply-adds of prediction and explanation together, divided by those of the "
            "prediction",
            "lower",
        ),
        Column(
            "ms_per_image",
            "time per image",
            "{:.2f} ms",
            "time of prediction and explanation together, in batches, on all cores",
            "lower",
        ),
    ),
    about=About.COST,
)
