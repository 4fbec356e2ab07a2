"""One image explained, and many in a gallery."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.observation.logits import class_logits
from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, PALE, RIGHT, WRONG, new_figure, short, wrapped
from foveal.plotting.maps import (
    combined,
    draw_attribution,
    draw_map,
    locations,
    relative,
    scale_end,
    with_locations,
)
from foveal.plotting.patches import draw_frames, draw_patch
from foveal.plotting.photo import LONGEST, dots_per_inch, draw_photo, is_photo, photo_of, proportion
from foveal.plotting.rebuilding import rebuilding_grid

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from matplotlib.image import AxesImage

SQUARE, NARROWEST, WIDEST = 3.2, 2.7, 5.4  # inches across the part for an image
FITS = 2.93  # inches across a square image in it
BAR = 0.9  # inches across a colour bar
CELL = 1.15  # inches across an image of a gallery
GALLERY_DOTS = 288  # an inch of a gallery, at most


def draw_image(
    axes: "Axes",
    explanation: Observation,
    numbers: bool = True,
    greatest: float | None = None,
    longest: int = LONGEST,
) -> "AxesImage | None":
    """Draw one image with its numbered patch frames, or its attention or attribution over it.

    It is drawn as it was given, where the explanation has its original.

    Args:
        axes: to draw on, in the coordinates of the explanation's pixels.
        explanation: of one image.
        numbers: beside the frames.
        greatest: end of the attention's scale; None for this image's own. An attribution's is
            always its own.
        longest: pixels along the image's longer side; a larger one is shrunk.

    Returns:
        The map as it was drawn, for a colour bar; None where there are no maps.
    """
    drawn = None
    image, maps = photo_of(explanation), explanation.maps
    if maps is None:
        # A thumbnail, where it stands for the image, fills the place of the image.
        draw_photo(axes, image, explanation.size, longest)
    elif explanation.values.signed:
        heat = maps[0].mean(dim=0)
        middle = 0.0 if explanation.values.zero else float(heat.mean())
        drawn = draw_attribution(axes, image, heat, middle, longest)
    else:
        heat = combined(maps)[0]
        drawn = draw_map(axes, image, heat, greatest or scale_end(heat), longest)
    axes.set_axis_off()
    if explanation.keypoints is not None:
        draw_frames(axes, explanation, numbers)
    return drawn


def _is_attribution(explanation: Observation) -> bool:
    """Return whether there are maps that speak for and against a class, not weights."""
    return explanation.maps is not None and explanation.values.signed


def draw_classes(axes: "Axes", explanation: Observation, top: int = 5) -> None:
    """Draw the most probable classes of one image as bars, the answer emphasised."""
    values, order = explanation.probabilities[0].sort(descending=True)
    values, order = values[:top].flip(0), order[:top].flip(0)
    shades = [PALE] * (len(order) - 1) + [INK]
    axes.barh(range(len(order)), values.tolist(), color=shades, height=0.62)
    names = [wrapped(explanation.class_name(int(i)), 18, 36) for i in order]
    axes.set_yticks(range(len(order)), names)
    for row, value in enumerate(values.tolist()):
        axes.text(value + 0.02, row, f"{value:.0%}", va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(PALE)


def explanation_figure(explanation: Observation, title: str | None = None) -> "Figure":
    """Draw one image: numbered patch frames, the patches enlarged, the classes.

    A photograph is drawn as it was given (`Explanation.originals`) and at its own resolution, up
    to 1,600 pixels along its longer side.

    Of a reconstructor: the patches, what was rebuilt from them and what was lost.

    Args:
        explanation: of one image.
        title: above it all.
    """
    if explanation.rebuilt is not None:
        figure = rebuilding_grid(explanation)
        if title:
            figure.suptitle(short(title, 60), fontsize=10, color=INK)
        return figure
    figure, parts = _parts(explanation)
    axes = parts[0].subplots()
    patches = None if explanation.patches is None else explanation.patches[0]
    if patches is not None:
        draw_image(axes, explanation)
        _draw_patches(parts[-2], patches, _notes(explanation))
        if len(parts) == 4:
            _draw_seen(parts[1], explanation)
    else:
        draw_photo(axes, photo_of(explanation), explanation.size)
        axes.set_axis_off()
        if explanation.maps is not None:
            _draw_maps(parts[1], explanation, explanation.maps)
    axes.set_title(_title(explanation, patches), fontsize=9, color=INK)
    bars = parts[-1].subplots()
    draw_classes(bars, explanation)
    answer = explanation.class_name(int(explanation.predictions[0]))
    bars.set_title(wrapped(f"answer: {answer}", 20), fontsize=10, fontweight="bold", color=INK)
    if title:
        figure.suptitle(short(title, 60), fontsize=10, color=INK)
    return figure


def _parts(explanation: Observation) -> tuple["Figure", "np.ndarray"]:
    """Return a figure for one image, and its parts: image, all that was seen, evidence, classes.

    Those of which the explanation has nothing are left out. The figure has as many pixels as the
    image needs, so that a photograph is not drawn smaller than it is.
    """
    image = photo_of(explanation)
    wide = min(max(SQUARE + FITS * (proportion(image) - 1), NARROWEST), WIDEST)
    between = 0.0
    if explanation.patches is not None:
        between = 1.05 * _columns(explanation.patches[0])
    elif explanation.maps is not None:
        between = wide + (BAR if is_photo(image) else 0.2)
    # Where no more than the thumbnail is there, the frames are drawn on that.
    seen = 0.0 if explanation.thumbnail is None or explanation.extent else 2.6
    dots = dots_per_inch(image, wide, FITS)
    width = 6.4 + 1.15 * (wide - SQUARE) + 1.05 * between + 1.25 * seen
    figure = new_figure(width, 3.4, dots)
    ratios = [part for part in (wide, seen, between, 2.4) if part]
    parts = figure.subfigures(1, len(ratios), squeeze=False, width_ratios=ratios, wspace=0.02)
    return figure, parts[0]


def _columns(patches: Tensor) -> int:
    return 1 if len(patches) <= 3 else 2 if len(patches) <= 8 else 3 if len(patches) <= 12 else 5


def _draw_seen(figure: "SubFigure", explanation: Observation) -> None:
    """Draw the thumbnail as large as the image, and the patches' pixels over it."""
    assert explanation.thumbnail is not None
    coarse = F.interpolate(explanation.thumbnail, explanation.size, mode="nearest")
    place = figure.subplots()
    seen = torch.where(explanation.evidence[:, None], explanation.images, coarse)
    draw_photo(place, seen[0], explanation.size, like=photo_of(explanation))
    place.set_title("all that it saw", fontsize=9, color=INK)
    place.set_axis_off()


def _notes(explanation: Observation) -> list[str]:
    """Return what stands below each patch of one image: its contribution, or its weight."""
    if explanation.contributions is not None:
        answer = explanation.predictions[0]
        added = class_logits(explanation.contributions)[0, :, answer]
        return [f"{value:+.2f}" for value in added.tolist()]
    if explanation.weights is not None:
        return [f"{weight:.0%}" for weight in explanation.weights[0].tolist()]
    return []


def _draw_patches(figure: "SubFigure", patches: Tensor, notes: Sequence[str]) -> None:
    columns = _columns(patches)
    grid = figure.subplots(-(-len(patches) // columns), columns, squeeze=False).flatten()
    for index, place in enumerate(grid):
        if index < len(patches):
            draw_patch(place, patches[index], index, notes[index] if notes else "")
        else:
            place.set_axis_off()


def _draw_attribution(figure: "SubFigure", explanation: Observation, maps: Tensor) -> None:
    """Draw an attribution; where its values can be summed, those of few locations as their sums."""
    place = figure.subplots()
    few = locations(maps[0].mean(dim=0), photo_of(explanation))
    label = explanation.values.label
    if few is not None and explanation.values.location_label is not None:
        label = explanation.values.location_label
        pixels = maps[0, 0].numel() / (few[0] * few[1])
        explanation = replace(explanation, maps=maps * pixels)
    drawn = draw_image(place, explanation)
    place.set_title(with_locations(short(explanation.method), few), fontsize=9, color=INK)
    _colour_bar(figure, drawn, place, label)


def _draw_maps(figure: "SubFigure", explanation: Observation, maps: Tensor) -> None:
    """Draw each depth's map and all together, on one scale; an attribution's only map."""
    if _is_attribution(explanation):
        _draw_attribution(figure, explanation, maps)
        return
    image = photo_of(explanation)
    depths = list(relative(maps)[0])
    heats = [*depths, combined(maps)[0]] if len(depths) > 1 else depths
    names = [*(f"map {number + 1}" for number in range(len(depths))), "all maps"]
    greatest = scale_end(relative(maps))
    columns = min(2, len(heats))
    grid = figure.subplots(-(-len(heats) // columns), columns, squeeze=False).flatten()
    drawn = None
    for place, heat, name in zip(grid, heats, names, strict=False):
        drawn = draw_map(place, image, heat, greatest)
        title = with_locations(name, locations(heat, image))
        place.set_title(title, fontsize=7, color=INK)
    for place in grid[len(heats) :]:
        place.set_axis_off()
    _colour_bar(figure, drawn, grid, explanation.values.label)


def _colour_bar(
    figure: "FigureBase", drawn: "AxesImage | None", grid: "Axes | np.ndarray", label: str
) -> "Colorbar":
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=grid, fraction=0.05, aspect=25, format="{x:g}")
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return bar


def _title(explanation: Observation, patches: Tensor | None) -> str:
    if patches is None and explanation.maps is None:
        return "looks at the whole image"
    if _is_attribution(explanation):  # its name stands over the map
        return "image" if is_photo(photo_of(explanation)) else ""
    if patches is None:
        return "looks everywhere, and weighs it"
    seen = "patches" if explanation.thumbnail is None else "patches and a thumbnail"
    share = float(explanation.evidence_fraction[0])
    said = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
    between = " " if explanation.thumbnail is None else "\n"  # one line would be cut off
    added = explanation.contributions is not None
    note = "\nbelow each: what it adds to the logit" if added else ""
    return f"decided from {len(patches)} {seen}:{between}{said} of the pixels{note}"


def gallery(
    explanation: Observation | Sequence[Observation], labels: Tensor, columns: int = 5
) -> "Figure":
    """Draw many images small: frames, the answer, and a sign for right or wrong.

    Args:
        explanation: of the images to show; or a sequence of explanations by the same model and
            method, each of images of a size of its own.
        labels: (B,) true classes, of all images in order.
        columns: images in a row.
    """
    several = isinstance(explanation, list | tuple)
    ones = [one for part in (explanation if several else [explanation]) for one in part]
    columns = min(columns, max(len(ones), 1))
    rows = -(-len(ones) // columns)
    maps = [combined(one.maps) for one in ones if one.maps is not None]
    largest = max((photo_of(one) for one in ones), key=lambda image: max(image.shape[-2:]))
    dots = dots_per_inch(largest, CELL, CELL, most=GALLERY_DOTS)
    figure = new_figure(1.25 * columns + 0.6 * bool(maps), 1.55 * rows, dots)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in grid[len(ones) :]:
        place.set_axis_off()
    greatest = max(map(scale_end, maps)) if maps else None
    drawn = None
    for place, one, label in zip(grid, ones, labels.tolist(), strict=False):
        drawn = draw_image(place, one, False, greatest, longest=round(CELL * GALLERY_DOTS))
        _mark(place, one, label)
    if drawn is not None and _is_attribution(ones[0]):
        label = f"attribution ({short(ones[0].method)}), each image on its own scale"
        _colour_bar(figure, drawn, grid, label).set_ticks([])
    elif drawn is not None:
        _colour_bar(figure, drawn, grid, ones[0].values.label)
    return figure


def _mark(axes: "Axes", explanation: Observation, truth: int) -> None:
    """Write the answer over one image, and whether it is right."""
    answer = int(explanation.predictions[0])
    name = short(explanation.class_name(answer), 10)
    if answer == truth:
        axes.set_title(f"✓ {name}", fontsize=8, color=RIGHT)
    else:
        wanted = short(explanation.class_name(truth), 10)
        axes.set_title(f"✗ {name}, is {wanted}", fontsize=7, color=WRONG)
