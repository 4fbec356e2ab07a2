"""The same images under several models and methods."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, RIGHT, WRONG, new_figure, short, wrapped
from foveal.plotting.figures import draw_image
from foveal.plotting.photo import draw_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def side_by_side(
    explanations: Sequence[tuple[str, Observation | Sequence[Observation]]], labels: Tensor
) -> "Figure":
    """Draw a row for each image: the image, then what each explanation shows of it.

    Args:
        explanations: for each column a heading, and an `Explanation` of the images or one of each,
            as images of several sizes have.
        labels: (B,) true classes, among those of the first explanation; an answer of that name
            is blue, any other orange.
    """
    rows, columns = len(labels), len(explanations) + 1
    figure = new_figure(1.15 * columns, 1.3 * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, (heading, _) in zip(grid[0, 1:], explanations, strict=True):
        place.annotate(
            wrapped(heading, 14),
            (0.5, 1.22),
            xycoords="axes fraction",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=INK,
        )
    for row in range(rows):
        first = explanations[0][1][row]
        draw_photo(grid[row, 0], photo_of(first, 0), first.size)
        truth = first.class_name(int(labels[row]))
        grid[row, 0].set_title(short(truth, 12), fontsize=7)
        grid[row, 0].set_axis_off()
        for place, (_, explanation) in zip(grid[row, 1:], explanations, strict=True):
            one = explanation[row]
            draw_image(place, one, numbers=False)
            answer = one.class_name(int(one.predictions[0]))
            shade = RIGHT if answer == truth else WRONG
            place.set_title(short(answer, 12), fontsize=7, color=shade)
    return figure
