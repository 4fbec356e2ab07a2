"""Pictures: what a model looked at, curves and frontiers.

Figures are plain `matplotlib.figure.Figure` objects without pyplot's global state, so that any
number of them can be drawn in a loop and nothing stays behind.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal.geometry import to_px

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# After Okabe & Ito 2008, told apart by colour-blind eyes; their yellow is darker here, for the
# white numbers on it. Numbers say the same as the colours.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#7F7F00")
INK, PALE, RIGHT, WRONG = "#222222", "#B8C0C8", "#0072B2", "#D55E00"
DPI = 144


def colour(index: int) -> str:
    """Return the colour of a patch by its number from 0."""
    return COLOURS[index % len(COLOURS)]


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches, apart from pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")


def _pixels(image: Tensor) -> Any:
    """Return (C, H, W) in [0, 1] as matplotlib takes it; one channel becomes three."""
    shown = image.detach().float().clamp(0, 1)
    return (shown.expand(3, -1, -1) if shown.shape[0] == 1 else shown[:3]).permute(1, 2, 0).numpy()


def frames_px(explanation: Any) -> Tensor:
    """Return left, top, width and height (K, 4) in pixels of one image's patch frames.

    Pixel (0, 0) reaches from -0.5 to 0.5, so a frame goes around whole pixels.
    """
    places = to_px(explanation.keypoints[0], explanation.size)  # (K, 2)
    spacing = torch.ones(len(places)) if explanation.scales is None else explanation.scales[0]
    side = (explanation.patch_size - 1) * spacing + 1
    return torch.stack([places[:, 0] - side / 2, places[:, 1] - side / 2, side, side], dim=1)


def draw_image(axes: "Axes", explanation: Any, numbers: bool = True) -> None:
    """Draw one image with its numbered patch frames, or its attention maps over it."""
    from matplotlib.patches import Rectangle

    axes.imshow(_pixels(explanation.images[0]), interpolation="nearest")
    axes.set_axis_off()
    if explanation.maps is not None:
        heat = explanation.maps[0].mean(dim=0).numpy()
        drawn = axes.imshow(heat, cmap="magma", alpha=0.6, interpolation="nearest")
        axes.figure.colorbar(drawn, ax=axes, fraction=0.046, label="attention")
    if explanation.keypoints is None:
        return
    width = max(1.2, 1.8 - 0.05 * len(explanation.keypoints[0]))
    places = to_px(explanation.keypoints[0], explanation.size)
    for index, (left, top, across, down) in enumerate(frames_px(explanation).tolist()):
        frame = Rectangle((left, top), across, down, fill=False, ec=colour(index), lw=width)
        axes.add_patch(frame)
        x, y = places[index].tolist()
        axes.plot([x], [y], marker="+", ms=4, color=colour(index), ls="none")
        if numbers:
            _number(axes, left, top, index)
    height, wide = explanation.size
    axes.set_xlim(-1.5, wide + 0.5)
    axes.set_ylim(height + 0.5, -1.5)


def _number(axes: "Axes", left: float, top: float, index: int) -> None:
    axes.annotate(
        str(index + 1),
        (left, top),
        fontsize=7,
        fontweight="bold",
        color="white",
        ha="center",
        va="center",
        bbox={"boxstyle": "circle,pad=0.18", "fc": colour(index), "ec": "none"},
    )


def draw_patch(axes: "Axes", patch: Tensor, index: int) -> None:
    """Draw one patch (C, P, P) enlarged, in the frame and with the number of its keypoint."""
    axes.imshow(_pixels(patch), interpolation="nearest", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=colour(index), linewidth=3)
    _number(axes, -0.5, -0.5, index)


def draw_classes(axes: "Axes", explanation: Any, top: int = 5) -> None:
    """Draw the most probable classes of one image as bars, the answer emphasised."""
    values, order = explanation.probabilities[0].sort(descending=True)
    values, order = values[:top].flip(0), order[:top].flip(0)
    shades = [PALE] * (len(order) - 1) + [INK]
    axes.barh(range(len(order)), values.tolist(), color=shades, height=0.62)
    axes.set_yticks(range(len(order)), [_short(explanation.class_name(int(i))) for i in order])
    for row, value in enumerate(values.tolist()):
        axes.text(value + 0.02, row, f"{value:.0%}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(PALE)


def _short(name: str, length: int = 18) -> str:
    plain = name.replace("$", r"\$")
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def explanation_figure(explanation: Any, title: str | None = None) -> "Figure":
    """Draw one image: numbered patch frames, the patches enlarged, the classes.

    Args:
        explanation: an `Explanation` of one image.
        title: above it all.
    """
    patches = None if explanation.patches is None else explanation.patches[0]
    columns = 0 if patches is None else (1 if len(patches) <= 3 else 2 if len(patches) <= 8 else 3)
    figure = new_figure(6.4 + 1.1 * columns, 3.4)
    ratios = [3.2, 1.05 * columns, 2.4] if columns else [3.2, 2.4]
    parts: Any = figure.subfigures(1, len(ratios), width_ratios=ratios, wspace=0.02)
    axes = parts[0].subplots()
    draw_image(axes, explanation)
    axes.set_title(_title(explanation, patches), fontsize=9, color=INK)
    if patches is not None:
        rows = -(-len(patches) // columns)
        grid = parts[1].subplots(rows, columns, squeeze=False).flatten()
        for index, place in enumerate(grid):
            if index < len(patches):
                draw_patch(place, patches[index], index)
            else:
                place.set_axis_off()
    bars = parts[-1].subplots()
    draw_classes(bars, explanation)
    answer = explanation.class_name(int(explanation.predictions[0]))
    bars.set_title(f"answer: {_short(answer)}", fontsize=10, fontweight="bold", color=INK)
    if title:
        figure.suptitle(_short(title, 60), fontsize=10, color=INK)
    return figure


def _title(explanation: Any, patches: Tensor | None) -> str:
    if patches is None and explanation.maps is None:
        return "looks at the whole image"
    if patches is None:
        return "looks everywhere, by weight"
    share = float(explanation.evidence.float().mean())
    return f"decided from {len(patches)} patches: {share:.0%} of the pixels"


def gallery(explanation: Any, labels: Tensor, columns: int = 5) -> "Figure":
    """Draw many images small: frames, the answer, and a sign for right or wrong.

    Args:
        explanation: of the images to show.
        labels: (B,) true classes.
        columns: images in a row.
    """
    count = len(explanation)
    columns = min(columns, max(count, 1))
    rows = -(-count // columns)
    figure = new_figure(1.25 * columns, 1.55 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in grid[count:]:
        place.set_axis_off()
    for index in range(count):
        one = explanation[index]
        draw_image(grid[index], one, numbers=False)
        answer, truth = int(one.predictions[0]), int(labels[index])
        name = _short(one.class_name(answer), 10)
        if answer == truth:
            grid[index].set_title(f"✓ {name}", fontsize=8, color=RIGHT)
        else:
            wanted = _short(one.class_name(truth), 10)
            grid[index].set_title(f"✗ {name}, is {wanted}", fontsize=7, color=WRONG)
    return figure


def learning_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> "Figure":
    """Draw validation accuracy and loss over the epochs, a line a model."""
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for number, (name, curve) in enumerate(curves.items()):
        epochs = [epoch + 1 for epoch in curve["epoch"]]
        line = ("-", "--", ":")[number // len(COLOURS) % 3]
        style = {"color": colour(number), "lw": 1.8, "ls": line, "marker": "o", "ms": 2.5}
        left.plot(epochs, [100 * a for a in curve["val_accuracy"]], label=_short(name, 40), **style)
        right.plot(epochs, curve["val_loss"], label=name, **style)
    for axes, label in ((left, "validation accuracy, %"), (right, "validation loss")):
        axes.set_xlabel("epoch", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        _plain(axes)
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
            _short(name, 40),
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
    _plain(axes)
    return figure


def _plain(axes: "Axes") -> None:
    axes.grid(color="#E4E8EB", lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
