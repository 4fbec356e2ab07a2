"""Energy inside: the fraction of positive heat inside the annotated region."""

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, fraction_inside, localisation


def energy_inside(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the fraction of positive heat inside the annotated region.

    This is the energy-based pointing game of Wang et al. 2020, "Score-CAM", section 4.3. For a
    uniform explanation, the value is the relative area of the region. It is NaN if the region is
    empty or no heat is positive.

    `truth`, (B, H, W) or (B, 1, H, W), is above 0 in the annotated region.

    Raises:
        ValueError: the shapes do not match, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    return fraction_inside(explanation.heat.double().clamp(min=0), inside)


ENERGY_INSIDE = localisation(
    Column(
        "energy_inside",
        "energy inside",
        "{:.1%}",
        "fraction of the positive heat inside the annotated region (Wang et al. 2020)",
        "higher",
    ),
    energy_inside,
)
