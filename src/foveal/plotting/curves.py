"""Curves of a training, and accuracy against what was looked at."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foveal.plotting.canvas import COLOURS, INK, colour, new_figure, plain_axes, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Draw validation accuracy and loss over the epochs, a line a model."""
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(curves.items()):
        epochs = [epoch + 1 for epoch in curve["epoch"]]
        line = ("-", "--", ":")[number // len(COLOURS) % 3]
        style = {"color": colour(number), "lw": 1.8, "ls": line, "marker": "o", "ms": 2.5}
        left.plot(epochs, [100 * a for a in curve["val_accuracy"]], label=short(name, 40), **style)
        right.plot(epochs, curve["val_loss"], label=name, **style)
    for axes, label in ((left, "validation accuracy, %"), (right, "validation loss")):
        axes.set_xlabel("epoch", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        plain_axes(axes)
    left.legend(fontsize=7, frameon=False)
    return figure


def frontier(points: Sequence[tuple[str, float, float]]) -> "Figure":
    """Draw accuracy against the evidence fraction, each point with its name.

    Args:
        points: name, evidence fraction and accuracy, both from 0 to 1.
    """
    figure = new_figure(7, 3.6)
    axes = figure.subplots()
    ordered = sorted(points, key=lambda point: (point[1], -point[2]))
    for number, (name, share, accuracy) in enumerate(ordered):
        axes.plot([100 * share], [100 * accuracy], "o", ms=7, color=colour(number))
        axes.annotate(
            short(name, 40),
            (100 * share, 100 * accuracy),
            xytext=(7, -3 if number % 2 else 4),
            textcoords="offset points",
            fontsize=8,
            color=INK,
        )
    axes.set_xlabel("share of the image that was looked at, %", fontsize=9)
    axes.set_ylabel("test accuracy, %", fontsize=9)
    widest = 100 * max((point[1] for point in points), default=0)
    axes.set_xlim(0, max(1.3 * widest, 10))  # room for the names
    axes.set_xticks(
        [tick for tick in range(0, 101, 10 if widest > 40 else 5) if tick <= widest + 5]
    )
    axes.margins(y=0.15)
    plain_axes(axes)
    return figure
