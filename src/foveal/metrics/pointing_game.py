"""Pointing game: how often the maximum of the heat lies inside the annotated region."""

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, fraction_inside, localisation


def pointing_game(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) whether the pixel of maximum heat lies inside the truth.

    After Zhang et al. 2018, "Top-down neural attention by excitation backprop", section 4.1,
    without their tolerance. Where several pixels have it, as within a patch or a cell of a
    coarse map, it is the fraction of them that lie inside: what a draw among them would hit. An
    explanation that is the same everywhere hits by the size of the truth alone. NaN where the
    truth is empty.

    For explanation and truth see `localisation`.

    Raises:
        ValueError: truth and explanation do not fit, or there is no heat.
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
