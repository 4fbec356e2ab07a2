"""Energy inside: the fraction of the heat inside the annotated region."""

from torch import Tensor

from foveal.columns import Column
from foveal.explanation import Explanation
from foveal.metrics.metric import ExplanationMetric
from foveal.metrics.subject import Given
from foveal.metrics.truth import check_truth


def energy_inside(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the share of its positive heat that lies inside the truth.

    The energy-based pointing game of Wang et al. 2020, "Score-CAM", section 4.3. An explanation
    that is the same everywhere gets the size of the truth. NaN where the truth is empty or no heat
    is positive.

    Args:
        explanation: of B images, with maps or patches.
        truth: (B, H, W) or (B, 1, H, W), above 0 where it is.

    Raises:
        ValueError: truth and explanation do not fit, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    heat = explanation.heat.double().clamp(min=0)
    share = (heat * inside).sum(dim=(-2, -1)) / heat.sum(dim=(-2, -1))
    return share.masked_fill(~inside.any(dim=-1).any(dim=-1), float("nan"))


ENERGY_INSIDE = ExplanationMetric(
    "energy_inside",
    lambda batch: {"energy_inside": energy_inside(batch.explanation, batch.truth)},
    (
        Column(
            "energy_inside",
            "energy inside",
            "{:.1%}",
            "fraction of the positive heat inside the annotated region (Wang et al. 2020)",
            "higher",
        ),
    ),
    needs=frozenset({Given.MASKS}),
)
