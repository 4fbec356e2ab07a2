"""Which classes are taken for which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from foveal.plotting.canvas import INK, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN = 20  # classes up to which the numbers are written into the cells


def confusion_matrix(counts: Tensor, classes: Sequence[str]) -> "Figure":
    """Draw how many images of each class (rows) got each answer (columns).

    A cell's colour is its share of its row; the diagonal is left pale, so that mistakes stand out.

    Args:
        counts: (classes, classes) of images.
        classes: a name for each class, or none to number them.
    """
    number = len(counts)
    side = min(3 + 0.28 * number, 9.0)
    figure = new_figure(side + 0.6, side)
    axes = figure.subplots()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    mistakes = shares.clone()
    mistakes.fill_diagonal_(0)
    top = max(float(mistakes.max()), 0.1)  # a single mistake in a hundred stays pale
    axes.imshow(mistakes.numpy(), cmap="Oranges", vmin=0, vmax=top)
    if number <= WRITTEN:
        names = [short(name, 12) for name in classes] or [str(i) for i in range(number)]
        axes.set_xticks(range(number), names, rotation=45, ha="right")
        axes.set_yticks(range(number), names)
        for row in range(number):
            for column in range(number):
                if counts[row, column]:
                    dark = mistakes[row, column] > 0.6 * top
                    text = str(int(counts[row, column]))
                    axes.text(
                        column,
                        row,
                        text,
                        ha="center",
                        va="center",
                        fontsize=7,
                        color="white" if dark else INK,
                    )
    axes.tick_params(length=0, labelsize=8)
    axes.set_xlabel("answer", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure
