"""Training curves, and accuracy against evidence or cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foveal.plotting.canvas import COLOURS, INK, MARKERS, colour, new_figure, plain_axes, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_STYLES = ("-", "--", ":")  # for curves of the same colour


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Draw validation accuracy and loss over the epochs, one line per model.

    Args:
        curves: for the name of each model its `epoch` (from 0), `val_accuracy` (from 0 to 1) and
            `val_loss`, as sequences of equal length.
    """
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for number, curve in enumerate(curves.values()):
        epochs = [epoch + 1 for epoch in curve["epoch"]]
        line_style = LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]
        style = {"color": colour(number), "lw": 1.8, "ls": line_style, "marker": "o", "ms": 2.5}
        left.plot(epochs, [100 * accuracy for accuracy in curve["val_accuracy"]], **style)
        right.plot(epochs, curve["val_loss"], **style)
    for axes, label in ((left, "validation accuracy, %"), (right, "validation loss")):
        axes.set_xlabel("epoch", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        plain_axes(axes)
    left.legend(left.lines, [shorten(name, 40) for name in curves], fontsize=7, frameon=False)
    return figure


def frontier(
    points: Sequence[tuple[str, float, float]],
    label: str = "evidence, % of the pixels",
    logarithmic: bool = False,
    split: str = "test",
) -> "Figure":
    """Draw accuracy against evidence or another cost.

    Names are in a legend, or next to each point if there are too many or some are empty.

    Args:
        points: name, cost, and accuracy from 0 to 1. Without `logarithmic` the cost is a fraction
            from 0 to 1.
        label: label of the cost.
        logarithmic: draw the cost, any positive number, on a logarithmic scale.
        split: split of the images on which the accuracy was measured.
    """
    figure = new_figure(7, 3.6)
    axes = figure.subplots()
    cost_factor = 1 if logarithmic else 100  # a fraction is drawn in percent
    with_legend = len(points) <= len(COLOURS) * len(MARKERS) and all(name for name, _, _ in points)
    for number, (name, cost, accuracy) in enumerate(points):
        xy = (cost_factor * cost, 100 * accuracy)
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.plot(*xy, marker, ms=7, color=colour(number))
        if not with_legend:
            text = shorten(name, 40)
            axes.annotate(text, xy, (7, -3), textcoords="offset points", fontsize=8, color=INK)
    if with_legend:
        _legend(figure, axes, [name for name, _, _ in points], fontsize=8)
    axes.set_xlabel(label, fontsize=9)
    axes.set_ylabel(f"{split} accuracy, %", fontsize=9)
    if logarithmic:
        _logarithmic(axes)
    else:
        _percent(axes, 100 * max((cost for _, cost, _ in points), default=0), with_legend)
    axes.margins(y=0.15)
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    plain_axes(axes)
    return figure


def _legend(figure: "Figure", axes: "Axes", names: Sequence[str], fontsize: float) -> None:
    """Add a legend with a name for each line, in order.

    Names are passed here, because matplotlib hides labels of lines that begin with an underscore.
    """
    figure.legend(
        axes.lines,
        [shorten(name, 40) for name in names],
        fontsize=fontsize,
        frameon=False,
        loc="outside right upper",
    )


def _percent(axes: "Axes", maximum: float, with_legend: bool) -> None:
    """Limit the x axis to a maximum in percent.

    Without a legend, there is more room on the right for the names next to the points.
    """
    axes.set_xlim(0, max((1.05 if with_legend else 1.3) * maximum, 10))
    step = 10 if maximum > 40 else 5
    axes.set_xticks([tick for tick in range(0, 101, step) if tick <= maximum + 5])


def _logarithmic(axes: "Axes") -> None:
    """Make the x axis logarithmic, with ticks at 1, 2 and 5 times powers of ten: 1 M, 2 M."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1)


def judged_curves(points: Mapping[str, Sequence[tuple[float, float]]]) -> "Figure":
    """Draw a judge's accuracy, given only the evidence, against the size of the evidence.

    A judge is a classifier that was trained independently to tell how much evidence a region
    contains.

    Args:
        points: for the name of each explanation one or several points: the fraction of the pixels
            that are evidence and the judge's accuracy, both from 0 to 1. Several points are joined
            by a line.
    """
    figure = new_figure(7, 3.8)
    axes = figure.subplots()
    for number, curve in enumerate(points.values()):
        is_line = len(curve) > 1
        line_style = LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)] if is_line else "none"
        marker = "o" if is_line else "D"
        fractions = [100 * fraction for fraction, _ in curve]
        accuracies = [100 * accuracy for _, accuracy in curve]
        axes.plot(
            fractions, accuracies, ls=line_style, marker=marker, ms=5, lw=1.5, color=colour(number)
        )
    axes.set_xlabel("fraction of the image shown, %", fontsize=9)
    axes.set_ylabel("the judge's accuracy, %", fontsize=9)
    axes.set_xlim(left=0)
    plain_axes(axes)
    _legend(figure, axes, list(points), fontsize=7)
    return figure
