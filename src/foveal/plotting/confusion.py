"""Confusion matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.plotting.canvas import INK, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_WRITTEN_CLASSES = 20  # maximum number of classes for which counts are written


def confusion_matrix(counts: Tensor, classes: Sequence[str]) -> "Figure":
    """Draw the number of images of each class (rows) with each prediction (columns).

    A cell's colour is its fraction of the row; the diagonal stays pale to emphasise mistakes.

    Args:
        counts: (classes, classes), numbers of images.
        classes: a name for each class, or none to number them.
    """
    number = len(counts)
    side = min(3 + 0.28 * number, 9.0)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    mistakes = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    mistakes.fill_diagonal_(0)
    maximum = max(float(mistakes.max()), 0.1)  # a single mistake in a hundred stays pale
    axes.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=maximum)
    if number <= MAX_WRITTEN_CLASSES:
        names = [shorten(name, 12) for name in classes] or [str(i) for i in range(number)]
        axes.set_xticks(range(number), names, rotation=45, ha="right")
        axes.set_yticks(range(number), names)
        _write_counts(axes, counts, mistakes > 0.6 * maximum)
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("prediction", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _write_counts(axes: "Axes", counts: Tensor, dark: Tensor) -> None:
    """Write the non-zero counts into their cells, in white if a cell is dark."""
    for row, column in counts.nonzero().tolist():
        shade = "white" if dark[row, column] else INK
        text = str(int(counts[row, column]))
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
