"""Figures of one explained image, and galleries of many."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.observation.logits import class_logits
from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, PALE, RIGHT, WRONG, new_figure, shorten, wrap
from foveal.plotting.maps import (
    combined,
    draw_attention_map,
    draw_attribution,
    location_grid,
    relative,
    scale_maximum,
    title_with_locations,
)
from foveal.plotting.patches import draw_frames, draw_patch
from foveal.plotting.photo import (
    MAX_SIDE_PX,
    aspect_ratio,
    dots_per_inch,
    draw_photo,
    is_photo,
    photo_of,
)
from foveal.plotting.rebuilding import rebuilding_grid

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure, FigureBase, SubFigure
    from matplotlib.image import AxesImage

# Widths in inches. A part is the portion of a figure that shows an image.
SQUARE_PART = 3.2  # width of a part with a square image
MIN_PART = 2.7  # minimum width of a part
MAX_PART = 5.4  # maximum width of a part
SQUARE_IMAGE = 2.93  # width of a square image in its part
COLOUR_BAR = 0.9  # width of a colour bar
CELL = 1.15  # width of an image in a gallery
GALLERY_DPI = 288  # maximum dots per inch of a gallery


def draw_image(
    axes: "Axes",
    explanation: Observation,
    numbers: bool = True,
    maximum: float | None = None,
    longest: int = MAX_SIDE_PX,
) -> "AxesImage | None":
    """Draw one image with its numbered patch frames, or its attention or attribution over it.

    The original image is drawn if the explanation contains it.

    Args:
        axes: to draw on, in the coordinates of the explanation's pixels.
        explanation: explanation of one image.
        numbers: whether to number the frames.
        maximum: upper end of the scale of attention maps; None to fit it to this image. It has no
            effect on attributions, each of which has its own scale.
        longest: maximum length in pixels of the image's longer side; larger images are downsampled.

    Returns:
        The map as an image of matplotlib, for a colour bar; None if there are no maps.
    """
    mappable = None
    image, maps = photo_of(explanation), explanation.maps
    if maps is None:
        # A thumbnail that replaces the image is drawn at the size of the image.
        draw_photo(axes, image, explanation.size, longest)
    elif explanation.values.signed:
        heat = maps[0].mean(dim=0)
        middle = 0.0 if explanation.values.zero else float(heat.mean())
        mappable = draw_attribution(axes, image, heat, middle, longest)
    else:
        heat = combined(maps)[0]
        mappable = draw_attention_map(axes, image, heat, maximum or scale_maximum(heat), longest)
    axes.set_axis_off()
    if explanation.keypoints is not None:
        draw_frames(axes, explanation, numbers)
    return mappable


def _is_attribution(explanation: Observation) -> bool:
    """Return whether there are maps whose values support or oppose a class, unlike weights."""
    return explanation.maps is not None and explanation.values.signed


def draw_classes(axes: "Axes", explanation: Observation, top: int = 5) -> None:
    """Draw the `top` most probable classes of one image as bars, the prediction first and dark."""
    values, order = explanation.probabilities[0].sort(descending=True)
    values, order = values[:top].flip(0), order[:top].flip(0)
    shades = [PALE] * (len(order) - 1) + [INK]
    axes.barh(range(len(order)), values.tolist(), color=shades, height=0.62)
    names = [wrap(explanation.class_name(int(i)), 18, 36) for i in order]
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
    """Draw one image with its evidence (patches or maps) and its most probable classes.

    A photograph is drawn from its original (`Explanation.originals`) at its own resolution, up
    to 1,600 pixels along its longer side. For a model that rebuilds images, the figure shows the
    patches, the image rebuilt from them, and the error.

    Args:
        explanation: explanation of one image.
        title: title of the figure.
    """
    if explanation.rebuilt is not None:
        figure = rebuilding_grid(explanation)
        if title:
            figure.suptitle(shorten(title, 60), fontsize=10, color=INK)
        return figure
    figure, parts = _figure_with_parts(explanation)
    image_part, *middle_parts, class_part = parts
    axes = image_part.subplots()
    patches = None if explanation.patches is None else explanation.patches[0]
    if patches is not None:
        draw_image(axes, explanation)
        _draw_patches(middle_parts[-1], patches, _notes(explanation))
        if len(middle_parts) == 2:
            _draw_evidence(middle_parts[0], explanation)
    else:
        draw_photo(axes, photo_of(explanation), explanation.size)
        axes.set_axis_off()
        if explanation.maps is not None:
            _draw_maps(middle_parts[0], explanation, explanation.maps)
    axes.set_title(_title(explanation, patches), fontsize=9, color=INK)
    bars = class_part.subplots()
    draw_classes(bars, explanation)
    name = explanation.class_name(int(explanation.predictions[0]))
    bars.set_title(wrap(f"prediction: {name}", 20), fontsize=10, fontweight="bold", color=INK)
    if title:
        figure.suptitle(shorten(title, 60), fontsize=10, color=INK)
    return figure


def _figure_with_parts(explanation: Observation) -> tuple["Figure", "np.ndarray"]:
    """Return a figure for one image, and its parts: image, evidence, patches or maps, classes.

    The part for evidence exists only if the model also reads a thumbnail, and the part for patches
    or maps only if there are any. The figure has enough pixels to draw a photograph at its own
    resolution.
    """
    image = photo_of(explanation)
    fitted_width = SQUARE_PART + SQUARE_IMAGE * (aspect_ratio(image) - 1)
    image_width = min(max(fitted_width, MIN_PART), MAX_PART)
    middle_width = 0.0
    if explanation.patches is not None:
        middle_width = 1.05 * _column_count(explanation.patches[0])
    elif explanation.maps is not None:
        middle_width = image_width + (COLOUR_BAR if is_photo(image) else 0.2)
    # If the thumbnail replaces the image, as for large images, the frames are drawn on it instead.
    evidence_width = 0.0 if explanation.thumbnail is None or explanation.extent else 2.6
    dpi = dots_per_inch(image, image_width, SQUARE_IMAGE)
    width = 6.4 + 1.15 * (image_width - SQUARE_PART) + 1.05 * middle_width + 1.25 * evidence_width
    figure = new_figure(width, 3.4, dpi)
    widths = (image_width, evidence_width, middle_width, 2.4)
    ratios = [part_width for part_width in widths if part_width]
    parts = figure.subfigures(1, len(ratios), squeeze=False, width_ratios=ratios, wspace=0.02)
    return figure, parts[0]


def _column_count(patches: Tensor) -> int:
    """Return the number of columns in which patches (K, C, P, P) are drawn."""
    if len(patches) <= 3:
        return 1
    if len(patches) <= 8:
        return 2
    return 3 if len(patches) <= 12 else 5


def _draw_evidence(figure: "SubFigure", explanation: Observation) -> None:
    """Draw what the model read: the enlarged thumbnail, and over it the pixels of the patches."""
    assert explanation.thumbnail is not None
    enlarged = F.interpolate(explanation.thumbnail, explanation.size, mode="nearest")
    axes = figure.subplots()
    evidence = torch.where(explanation.evidence[:, None], explanation.images, enlarged)
    draw_photo(axes, evidence[0], explanation.size, like=photo_of(explanation))
    axes.set_title("evidence", fontsize=9, color=INK)
    axes.set_axis_off()


def _notes(explanation: Observation) -> list[str]:
    """Return the note below each patch of one image: its contribution or its weight.

    The contribution is to the logit of the predicted class. The list is empty for a model that
    computes neither.
    """
    if explanation.contributions is not None:
        prediction = explanation.predictions[0]
        contributions = class_logits(explanation.contributions)[0, :, prediction]
        return [f"{value:+.2f}" for value in contributions.tolist()]
    if explanation.weights is not None:
        return [f"{weight:.0%}" for weight in explanation.weights[0].tolist()]
    return []


def _draw_patches(figure: "SubFigure", patches: Tensor, notes: Sequence[str]) -> None:
    """Draw patches (K, C, P, P) in a grid, each with its note unless there are none."""
    columns = _column_count(patches)
    grid = figure.subplots(-(-len(patches) // columns), columns, squeeze=False).flatten()
    for index, axes in enumerate(grid):
        if index < len(patches):
            draw_patch(axes, patches[index], index, notes[index] if notes else "")
        else:
            axes.set_axis_off()


def _draw_attribution(figure: "SubFigure", explanation: Observation, maps: Tensor) -> None:
    """Draw an attribution with its name and a colour bar.

    If the map is coarse and its values can be summed, they are drawn as sums per location.
    """
    axes = figure.subplots()
    locations = location_grid(maps[0].mean(dim=0), photo_of(explanation))
    label = explanation.values.label
    if locations is not None and explanation.values.location_label is not None:
        label = explanation.values.location_label
        rows, columns = locations
        pixels_per_location = maps[0, 0].numel() / (rows * columns)
        explanation = replace(explanation, maps=maps * pixels_per_location)
    mappable = draw_image(axes, explanation)
    title = title_with_locations(shorten(explanation.method), locations)
    axes.set_title(title, fontsize=9, color=INK)
    _colour_bar(figure, mappable, axes, label)


def _draw_maps(figure: "SubFigure", explanation: Observation, maps: Tensor) -> None:
    """Draw an attribution, or the attention maps of all depths and their mean on one scale."""
    if _is_attribution(explanation):
        _draw_attribution(figure, explanation, maps)
        return
    image = photo_of(explanation)
    depths = list(relative(maps)[0])
    heats = [*depths, combined(maps)[0]] if len(depths) > 1 else depths
    names = [*(f"map {number + 1}" for number in range(len(depths))), "all maps"]
    maximum = scale_maximum(relative(maps))
    columns = min(2, len(heats))
    grid = figure.subplots(-(-len(heats) // columns), columns, squeeze=False).flatten()
    mappable = None
    for axes, heat, name in zip(grid, heats, names, strict=False):
        mappable = draw_attention_map(axes, image, heat, maximum)
        title = title_with_locations(name, location_grid(heat, image))
        axes.set_title(title, fontsize=7, color=INK)
    for axes in grid[len(heats) :]:
        axes.set_axis_off()
    _colour_bar(figure, mappable, grid, explanation.values.label)


def _colour_bar(
    figure: "FigureBase", mappable: "AxesImage | None", grid: "Axes | np.ndarray", label: str
) -> "Colorbar":
    """Add a colour bar for a map next to the axes it describes, and return the bar."""
    assert mappable is not None
    bar = figure.colorbar(mappable, ax=grid, fraction=0.05, aspect=25, format="{x:g}")
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return bar


def _title(explanation: Observation, patches: Tensor | None) -> str:
    """Return the title of the image, which states what the decision was made from."""
    if patches is None and explanation.maps is None:
        return "reads the whole image"
    if _is_attribution(explanation):  # the name of the method is above the map
        return "image" if is_photo(photo_of(explanation)) else ""
    if patches is None:
        return "reads the whole image, weighted"
    source = "patches" if explanation.thumbnail is None else "patches and a thumbnail"
    fraction = float(explanation.evidence_fraction[0])
    percent = f"{fraction:.0%}" if fraction >= 0.01 else f"{fraction:.1%}"
    separator = " " if explanation.thumbnail is None else "\n"  # a single line would be truncated
    has_contributions = explanation.contributions is not None
    note = "\nbelow each: contribution to the logit" if has_contributions else ""
    return f"decided from {len(patches)} {source}:{separator}{percent} of the pixels{note}"


def gallery(
    explanation: Observation | Sequence[Observation], labels: Tensor, columns: int = 5
) -> "Figure":
    """Draw many small images with frames and the prediction, marked as right or wrong.

    Args:
        explanation: explanation of the images; or a sequence of explanations by the same model
            and method, each of images of one size.
        labels: (B,) true classes of all images in order.
        columns: images per row.
    """
    is_sequence = isinstance(explanation, list | tuple)
    explanations = explanation if is_sequence else [explanation]
    singles = [single for batch in explanations for single in batch]
    columns = min(columns, max(len(singles), 1))
    rows = -(-len(singles) // columns)
    heats = [combined(single.maps) for single in singles if single.maps is not None]
    largest = max((photo_of(single) for single in singles), key=lambda image: max(image.shape[-2:]))
    dpi = dots_per_inch(largest, CELL, CELL, limit=GALLERY_DPI)
    figure = new_figure(1.25 * columns + 0.6 * bool(heats), 1.55 * rows, dpi)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(singles) :]:
        axes.set_axis_off()
    maximum = max(map(scale_maximum, heats)) if heats else None
    mappable = None
    for axes, single, truth in zip(grid, singles, labels.tolist(), strict=False):
        longest = round(CELL * GALLERY_DPI)
        mappable = draw_image(axes, single, numbers=False, maximum=maximum, longest=longest)
        _mark(axes, single, truth)
    if mappable is not None and _is_attribution(singles[0]):
        label = f"attribution ({shorten(singles[0].method)}), each image on its own scale"
        _colour_bar(figure, mappable, grid, label).set_ticks([])
    elif mappable is not None:
        _colour_bar(figure, mappable, grid, singles[0].values.label)
    return figure


def _mark(axes: "Axes", explanation: Observation, truth: int) -> None:
    """Write the prediction above one image, marked as right or wrong, with the class it missed."""
    prediction = int(explanation.predictions[0])
    name = shorten(explanation.class_name(prediction), 10)
    if prediction == truth:
        axes.set_title(f"✓ {name}", fontsize=8, color=RIGHT)
    else:
        true_name = shorten(explanation.class_name(truth), 10)
        axes.set_title(f"✗ {name}, is {true_name}", fontsize=7, color=WRONG)
