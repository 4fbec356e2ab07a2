"""Figures of the same images explained by several models or methods, side by side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, RIGHT, WRONG, new_figure, shorten, wrap
from foveal.plotting.figures import draw_image
from foveal.plotting.photo import draw_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def side_by_side(
    explanations: Sequence[tuple[str, Observation | Sequence[Observation]]], labels: Tensor
) -> "Figure":
    """Draw one row per image: the image, then each of its explanations.

    Args:
        explanations: for each column a heading, and an `Explanation` of all images, or one per
            image if the images differ in size.
        labels: (B,) true classes, as indices into the classes of the first explanation. Class names
            are compared: predictions of the class with the true name are blue, others orange.
    """
    rows, columns = len(labels), len(explanations) + 1
    figure = new_figure(1.15 * columns, 1.3 * rows + 0.7)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (heading, _) in zip(grid[0, 1:], explanations, strict=True):
        axes.annotate(
            wrap(heading, 14),
            (0.5, 1.22),
            xycoords="axes fraction",
            ha="center",
            va="bottom",
            fontsize=7.5,
            color=INK,
        )
    for row in range(rows):
        _, first_column = explanations[0]
        first = first_column[row]
        draw_photo(grid[row, 0], photo_of(first), first.size)
        truth = first.class_name(int(labels[row]))
        grid[row, 0].set_title(shorten(truth, 12), fontsize=7)
        grid[row, 0].set_axis_off()
        for axes, (_, column) in zip(grid[row, 1:], explanations, strict=True):
            explanation = column[row]
            draw_image(axes, explanation, numbers=False)
            prediction = explanation.class_name(int(explanation.predictions[0]))
            shade = RIGHT if prediction == truth else WRONG
            axes.set_title(shorten(prediction, 12), fontsize=7, color=shade)
    return figure
