"""Maps over the image: attention on a common scale, attributions coloured by sign.

A relative map is an attention map divided by its mean, so that 1 is the weight that every pixel
would have if the weights were uniform. A model may have one map for each of several depths, which
are stages of its backbone.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, RIGHT, WRONG, new_figure, shorten
from foveal.plotting.cells import cells_of, smooth
from foveal.plotting.photo import MAX_SIDE_PX, downsample, draw_photo, extent_of, is_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

OPACITY = 0.65  # opacity of maps, except of attributions over photographs
MIN_OPACITY = 0.15  # opacity of attributions over photographs where they are neutral
MAX_OPACITY = 0.7  # opacity of attributions over photographs where they deviate most from neutral
MIN_RELATIVE = 0.1  # lower end of the scale of relative maps; smaller values are clamped to it


def relative(maps: Tensor) -> Tensor:
    """Return maps (..., H, W) divided by their mean, as multiples of the uniform weight.

    Explanations contain raw weights, which are smaller in a fine map than in a coarse one. Relative
    weights can be compared on one scale.
    """
    maps = maps.float()
    return maps / maps.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-12)


def combined(maps: Tensor) -> Tensor:
    """Return the mean (B, H, W) over depths of raw maps (B, M, H, W), each first made relative."""
    return relative(maps).mean(dim=1)


def scale_maximum(heats: Tensor) -> float:
    """Return the upper end of the scale of relative maps: their maximum, but at least 10.

    The logarithmic scale begins at a tenth of the uniform weight. If it ends at ten times the
    uniform weight, the uniform weight is in the middle.
    """
    return max(float(heats.max()), 1 / MIN_RELATIVE)


def draw_attention_map(
    axes: "Axes", image: Tensor, heat: Tensor, maximum: float, longest: int = MAX_SIDE_PX
) -> "AxesImage":
    """Draw a relative map (H, W) over an image in grey, up to `maximum`.

    The colours are logarithmic: one location often has fifty times the uniform weight, and on a
    linear scale all others would look the same.

    Args:
        axes: to draw on, in the coordinates of the map's pixels.
        image: (C, H', W') of any size, drawn with its own aspect ratio.
        heat: (H, W); over a photograph, a coarse map is interpolated between its cells.
        maximum: upper end of the scale.
        longest: maximum length in pixels of the image's longer side; larger images are downsampled.
    """
    from matplotlib.colors import LogNorm

    norm = LogNorm(MIN_RELATIVE, maximum)
    grey = downsample(image, longest).mean(dim=0, keepdim=True)
    draw_photo(axes, grey, (heat.shape[0], heat.shape[1]))
    values = _displayed_values(heat, image).clamp(min=MIN_RELATIVE)
    return _overlay(
        axes, values, heat, cmap="magma", norm=norm, interpolation="bilinear", alpha=OPACITY
    )


def draw_attribution(
    axes: "Axes", image: Tensor, heat: Tensor, middle: float = 0.0, longest: int = MAX_SIDE_PX
) -> "AxesImage":
    """Draw raw attributions (H, W) over an image in pale grey.

    Red supports the class and blue opposes it, on a linear scale that covers the values of the map.

    Args:
        axes: to draw on, in the coordinates of the map's pixels.
        image: (C, H', W') of any size, drawn with its own aspect ratio.
        heat: (H, W); over a photograph, a coarse map is interpolated between its cells.
        middle: the neutral value, which is white.
        longest: maximum length in pixels of the image's longer side; larger images are downsampled.
    """
    max_deviation = float((heat - middle).abs().max()) or 1.0  # 1 for a uniform map
    values = _displayed_values(heat, image).float()
    strength = ((values - middle).abs() / max_deviation).clamp(0, 1)
    # A photograph remains visible where attributions are small.
    span = MAX_OPACITY - MIN_OPACITY
    alpha = (MIN_OPACITY + span * strength).numpy() if is_photo(image) else OPACITY
    # Dark pixels would hide the colours.
    pale = (1 + downsample(image, longest).mean(dim=0, keepdim=True)) / 2
    draw_photo(axes, pale, (heat.shape[0], heat.shape[1]))
    return _overlay(
        axes,
        values,
        heat,
        cmap="RdBu_r",
        alpha=alpha,
        vmin=middle - max_deviation,
        vmax=middle + max_deviation,
        interpolation="bilinear" if is_photo(image) else "nearest",
    )


def _displayed_values(heat: Tensor, image: Tensor) -> Tensor:
    """Return the values of a map (H, W) as they are drawn.

    Over a photograph, a coarse map is interpolated and a large map downsampled. Over a small image,
    the map is unchanged.
    """
    return downsample(smooth(heat)[None], MAX_SIDE_PX)[0] if is_photo(image) else heat


def _overlay(axes: "Axes", values: Tensor, heat: Tensor, **options: Any) -> "AxesImage":
    """Draw values over the image of a map (H, W), with the same extent and aspect.

    Args:
        axes: to draw on.
        values: values of the map, in any resolution.
        heat: (H, W), the map itself, of which only the size is used.
        options: options of `imshow`.
    """
    mappable = axes.imshow(
        values.float().numpy(),
        extent=extent_of((heat.shape[0], heat.shape[1])),
        aspect=axes.get_aspect(),
        **options,
    )
    axes.set_axis_off()
    return mappable


def location_grid(heat: Tensor, image: Tensor) -> tuple[int, int] | None:
    """Return the numbers of rows and columns of locations of a map (H, W) that is interpolated.

    Return None if it is not interpolated, because the image is small or the map is not coarse.
    """
    cells = cells_of(heat)
    is_interpolated = is_photo(image) and cells.is_coarse
    return (cells.values.shape[0], cells.values.shape[1]) if is_interpolated else None


def title_with_locations(name: str, grid: tuple[int, int] | None) -> str:
    """Return a map's title, with the size of the grid of locations if it is interpolated."""
    if grid is None:
        return name
    rows, columns = grid
    return f"{name}: {rows} x {columns} locations, interpolated"


def attention_grid(explanation: Observation, labels: Tensor | None = None) -> "Figure":
    """Draw one row per image: the image, its map at each depth, and the mean of the maps.

    Args:
        explanation: explanation of images, with maps (B, M, H, W).
        labels: (B,) true classes, to mark right and wrong predictions; None for no marks.

    Raises:
        ValueError: the explanation has no maps.
    """
    if explanation.maps is None:
        raise ValueError("Expected an explanation with attention maps, but it has none.")
    depths = relative(explanation.maps)  # (B, M, H, W)
    rows, columns = len(explanation), depths.shape[1] + 2
    figure = new_figure(1.35 * columns + 0.9, 1.35 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    maximum = scale_maximum(depths)
    headings = ["image", *(f"map {depth + 1}" for depth in range(depths.shape[1])), "all maps"]
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=9, color=INK)
    mappable: Any = None
    for row in range(rows):
        image = photo_of(explanation, row)
        draw_photo(grid[row, 0], image, explanation.size)
        truth = None if labels is None else int(labels[row])
        _write_prediction(grid[row, 0], explanation[row], truth)
        heats: Sequence[Tensor] = [*depths[row], depths[row].mean(dim=0)]
        for axes, heat in zip(grid[row, 1:], heats, strict=True):
            mappable = draw_attention_map(axes, image, heat, maximum)
    label = explanation.values.label
    figure.colorbar(mappable, ax=grid, fraction=0.03, aspect=30, label=label, format="{x:g}")
    return figure


def _write_prediction(axes: "Axes", explanation: Observation, truth: int | None) -> None:
    """Write the prediction for one image on its left, because its title may be a column heading.

    The colour shows whether the prediction is correct, unless the true class is None.
    """
    prediction = int(explanation.predictions[0])
    shade = INK
    if truth is not None:
        shade = RIGHT if prediction == truth else WRONG
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(shorten(explanation.class_name(prediction), 14), fontsize=8, color=shade)
    for spine in axes.spines.values():
        spine.set_visible(False)
