"""One image explained, and many in a gallery."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.plotting.canvas import INK, PALE, RIGHT, WRONG, new_figure, pixels, short, wrapped
from foveal.plotting.maps import (
    ATTRIBUTION,
    LABEL,
    NO_ZERO,
    TERMS,
    combined,
    draw_attribution,
    draw_map,
    relative,
    scale_end,
)
from foveal.plotting.patches import draw_frames, draw_patch
from foveal.plotting.rebuilding import rebuilding_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_image(
    axes: "Axes", explanation: Any, numbers: bool = True, greatest: float | None = None
) -> Any:
    """Draw one image with its numbered patch frames, or its attention or attribution over it.

    Args:
        axes: to draw on.
        explanation: of one image.
        numbers: beside the frames.
        greatest: end of the attention's scale; None for this image's own. An attribution's is
            always its own.

    Returns:
        The map as it was drawn, for a colour bar; None where there are no maps.
    """
    drawn = None
    if _is_attribution(explanation):
        heat = explanation.maps[0].mean(dim=0)
        middle = float(heat.mean()) if explanation.method in NO_ZERO else 0.0
        drawn = draw_attribution(axes, explanation.images[0], heat, middle)
    elif explanation.maps is not None:
        heat = combined(explanation.maps)[0]
        drawn = draw_map(axes, explanation.images[0], heat, greatest or scale_end(heat))
    else:
        # A thumbnail, where it stands for the image, fills the place of the image.
        height, width = explanation.size
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(pixels(explanation.images[0]), interpolation="nearest", extent=extent)
    axes.set_axis_off()
    if explanation.keypoints is not None:
        draw_frames(axes, explanation, numbers)
    return drawn


def _is_attribution(explanation: Any) -> bool:
    """Return whether the maps are those of a post-hoc method, not attention of the model's own."""
    return explanation.maps is not None and explanation.method != "model"


def draw_classes(axes: "Axes", explanation: Any, top: int = 5) -> None:
    """Draw the most probable classes of one image as bars, the answer emphasised."""
    values, order = explanation.probabilities[0].sort(descending=True)
    values, order = values[:top].flip(0), order[:top].flip(0)
    shades = [PALE] * (len(order) - 1) + [INK]
    axes.barh(range(len(order)), values.tolist(), color=shades, height=0.62)
    axes.set_yticks(range(len(order)), [short(explanation.class_name(int(i))) for i in order])
    for row, value in enumerate(values.tolist()):
        axes.text(value + 0.02, row, f"{value:.0%}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(PALE)


def explanation_figure(explanation: Any, title: str | None = None) -> "Figure":
    """Draw one image: numbered patch frames, the patches enlarged, the classes.

    Of a reconstructor: the patches, what was rebuilt from them and what was lost.

    Args:
        explanation: an `Explanation` of one image.
        title: above it all.
    """
    if explanation.rebuilt is not None:
        figure = rebuilding_grid(explanation)
        if title:
            figure.suptitle(short(title, 60), fontsize=10, color=INK)
        return figure
    patches = None if explanation.patches is None else explanation.patches[0]
    between = 0.0
    if patches is not None:
        between = 1.05 * _columns(patches)
    elif explanation.maps is not None:
        between = 3.4
    # Where no more than the thumbnail is there, the frames are drawn on that.
    seen = 0.0 if explanation.thumbnail is None or explanation.extent else 2.6
    figure = new_figure(6.4 + 1.05 * between + 1.25 * seen, 3.4)
    ratios = [width for width in (3.2, seen, between, 2.4) if width]
    parts: Any = figure.subfigures(1, len(ratios), width_ratios=ratios, wspace=0.02)
    axes = parts[0].subplots()
    if patches is not None:
        draw_image(axes, explanation)
        _draw_patches(parts[-2], patches, explanation.weights)
        if seen:
            _draw_seen(parts[1], explanation)
    else:
        axes.imshow(pixels(explanation.images[0]), interpolation="nearest")
        axes.set_axis_off()
        if explanation.maps is not None:
            _draw_maps(parts[1], explanation)
    axes.set_title(_title(explanation, patches), fontsize=9, color=INK)
    bars = parts[-1].subplots()
    draw_classes(bars, explanation)
    answer = explanation.class_name(int(explanation.predictions[0]))
    bars.set_title(wrapped(f"answer: {answer}", 20), fontsize=10, fontweight="bold", color=INK)
    if title:
        figure.suptitle(short(title, 60), fontsize=10, color=INK)
    return figure


def _columns(patches: Tensor) -> int:
    return 1 if len(patches) <= 3 else 2 if len(patches) <= 8 else 3 if len(patches) <= 12 else 5


def _draw_seen(figure: Any, explanation: Any) -> None:
    """Draw the thumbnail as large as the image, and the patches' pixels over it."""
    coarse = F.interpolate(explanation.thumbnail, explanation.size, mode="nearest")
    place = figure.subplots()
    seen = torch.where(explanation.evidence[:, None], explanation.images, coarse)
    place.imshow(pixels(seen[0]), interpolation="nearest")
    place.set_title("all that it saw", fontsize=9, color=INK)
    place.set_axis_off()


def _draw_patches(figure: Any, patches: Tensor, weights: Tensor | None) -> None:
    columns = _columns(patches)
    grid = figure.subplots(-(-len(patches) // columns), columns, squeeze=False).flatten()
    for index, place in enumerate(grid):
        if index < len(patches):
            weight = None if weights is None else float(weights[0, index])
            draw_patch(place, patches[index], index, weight)
        else:
            place.set_axis_off()


def _draw_attribution(figure: Any, explanation: Any) -> None:
    place = figure.subplots()
    drawn = draw_image(place, explanation)
    place.set_title(short(explanation.method), fontsize=9, color=INK)
    label = TERMS if explanation.method == "contributions" else ATTRIBUTION
    _colour_bar(figure, drawn, place, label)


def _draw_maps(figure: Any, explanation: Any) -> None:
    """Draw each depth's map and all together, on one scale; an attribution's only map."""
    if _is_attribution(explanation):
        _draw_attribution(figure, explanation)
        return
    depths = list(relative(explanation.maps)[0])
    heats = [*depths, combined(explanation.maps)[0]] if len(depths) > 1 else depths
    names = [*(f"map {number + 1}" for number in range(len(depths))), "all maps"]
    greatest = scale_end(relative(explanation.maps))
    columns = min(2, len(heats))
    grid = figure.subplots(-(-len(heats) // columns), columns, squeeze=False).flatten()
    drawn = None
    for place, heat, name in zip(grid, heats, names, strict=False):
        drawn = draw_map(place, explanation.images[0], heat, greatest)
        place.set_title(name, fontsize=7, color=INK)
    for place in grid[len(heats) :]:
        place.set_axis_off()
    _colour_bar(figure, drawn, grid, LABEL)


def _colour_bar(figure: Any, drawn: Any, grid: Any, label: str) -> Any:
    bar = figure.colorbar(drawn, ax=grid, fraction=0.05, aspect=25, format="{x:g}")
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return bar


def _title(explanation: Any, patches: Tensor | None) -> str:
    if patches is None and explanation.maps is None:
        return "looks at the whole image"
    if _is_attribution(explanation):
        return ""  # it stands over the map
    if patches is None:
        return "looks everywhere, and weighs it"
    seen = "patches" if explanation.thumbnail is None else "patches and a thumbnail"
    share = float(explanation.evidence_fraction[0])
    said = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
    between = " " if explanation.thumbnail is None else "\n"  # one line would be cut off
    return f"decided from {len(patches)} {seen}:{between}{said} of the pixels"


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
    figure = new_figure(1.25 * columns + 0.6 * (explanation.maps is not None), 1.55 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in grid[count:]:
        place.set_axis_off()
    maps = explanation.maps
    greatest = None if maps is None else scale_end(combined(maps))
    drawn = None
    for index in range(count):
        one = explanation[index]
        drawn = draw_image(grid[index], one, numbers=False, greatest=greatest)
        answer, truth = int(one.predictions[0]), int(labels[index])
        name = short(one.class_name(answer), 10)
        if answer == truth:
            grid[index].set_title(f"✓ {name}", fontsize=8, color=RIGHT)
        else:
            wanted = short(one.class_name(truth), 10)
            grid[index].set_title(f"✗ {name}, is {wanted}", fontsize=7, color=WRONG)
    if drawn is not None and _is_attribution(explanation):
        label = f"{ATTRIBUTION} ({short(explanation.method)}), each image on its own scale"
        _colour_bar(figure, drawn, grid, label).set_ticks([])
    elif drawn is not None:
        _colour_bar(figure, drawn, grid, LABEL)
    return figure
