"""Pointing game: how often the maximum of the heat lies inside the annotated region."""

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, fraction_inside, localisation


def pointing_game(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) whether the pixel of maximum heat is in the annotated region.

    After Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.1,
    without their tolerance. If several pixels share the maximum, such as those of a patch or of a
    cell of a coarse map, the value is the fraction of them inside, the expected hit of a random
    one. A uniform explanation gets the relative area of the region. NaN if the region is empty.

    See `localisation` for the arguments.

    Raises:
        ValueError: the shapes do not match, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    heat = explanation.heat
    return fraction_inside(heat == heat.amax(dim=(-2, -1), keepdim=True), inside)


POINTING_GAME = localisation(
    Column(
        "pointing_game",
        "hits",
        "{:.1%}",
        "pointing game (Zhang et al. 2018): how often the maximum of the heat lies inside the "
        "annotated region",
        "higher",
    ),
    pointing_game,
)
