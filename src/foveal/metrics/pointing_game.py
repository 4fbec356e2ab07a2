"""Pointing game: how often the maximum of the heat lies inside the annotated region."""

from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, fraction_inside, localisation


def pointing_game(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) whether the pixel of maximum heat is in the annotated region.

    This is the pointing game of Zhang et al. 2018, "Top-down neural attention by excitation
    backprop", section 4.1, but without their tolerance around the maximum. If several pixels share
    the maximum, such as those of a patch or of a cell of a coarse map, the value is the fraction of
    them inside, which is the expected value if one of them were drawn at random. For a uniform
    explanation, the value is the relative area of the region. It is NaN if the region is empty.

    `truth`, (B, H, W) or (B, 1, H, W), is above 0 in the annotated region.

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
