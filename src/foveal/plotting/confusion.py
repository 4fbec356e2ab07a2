"""Confusion matrices: counts of images by class and prediction."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.plotting.canvas import INK, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WRITTEN_CLASSES = 20  # maximum number of classes for which names and counts are written


def confusion_matrix(counts: Tensor, classes: Sequence[str]) -> "Figure":
    """Draw the number of images of each class (rows) with each prediction (columns).

    A cell's colour shows its fraction of the images of the class. The diagonal, which counts
    correct predictions, stays pale to emphasise mistakes.

    Args:
        counts: (classes, classes), numbers of images.
        classes: a name for each class; empty to number them.
    """
    class_count = len(counts)
    side = min(3 + 0.28 * class_count, 9.0)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    mistakes = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    mistakes.fill_diagonal_(0)
    maximum = max(float(mistakes.max()), 0.1)  # so that one mistake in a hundred images stays pale
    axes.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=maximum)
    if class_count <= MAX_WRITTEN_CLASSES:
        names = [shorten(name, 12) for name in classes] or [str(i) for i in range(class_count)]
        axes.set_xticks(range(class_count), names, rotation=45, ha="right")
        axes.set_yticks(range(class_count), names)
        _write_counts(axes, counts, is_dark=mistakes > 0.6 * maximum)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("prediction", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _write_counts(axes: "Axes", counts: Tensor, is_dark: Tensor) -> None:
    """Write the non-zero counts into their cells, in white if a cell is dark."""
    for row, column in counts.nonzero().tolist():
        shade = "white" if is_dark[row, column] else INK
        text = str(int(counts[row, column]))
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
