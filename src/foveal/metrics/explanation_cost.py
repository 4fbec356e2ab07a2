"""Cost of explanations: forward passes and time per image."""

import torch
from torch import Tensor

from foveal.foundation.columns import Column
from foveal.metrics.metric import About, ExplanationMetric
from foveal.metrics.subject import Explained


def _measure(batch: Explained) -> dict[str, Tensor]:
    images = len(batch.test)
    each = {
        "cost_forward_passes": batch.explanation.cost,
        "ms_per_image": 1000 * batch.seconds / images,
    }
    return {key: torch.full((images,), value, dtype=torch.double) for key, value in each.items()}


EXPLANATION_COST = ExplanationMetric(
    "explanation_cost",
    _measure,
    (
        Column(
            "cost_forward_passes",
            "forward passes",
            "{:.1f}",
            "cost of prediction and explanation together, in forward passes",
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
