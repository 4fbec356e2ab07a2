"""Maps over the image: attention on a scale that is the same for all, attributions by sign."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, RIGHT, WRONG, new_figure, short
from foveal.plotting.cells import cells_of, smooth
from foveal.plotting.photo import LONGEST, bounded, draw_photo, extent_of, is_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

OPAQUE = 0.65  # of maps
FAINT, STRONG = 0.15, 0.7  # of attributions over photographs, where they are 0 and greatest
LEAST = 0.1  # where the colours of relative maps begin; what is less looks like this


def relative(maps: Tensor) -> Tensor:
    """Return maps (..., H, W) as multiples of their mean: 1 is what every place would get.

    Raw weights of a fine map are smaller than those of a coarse one, and only so can they share
    a scale. Explanations keep the raw weights.
    """
    maps = maps.float()
    return maps / maps.mean(dim=(-2, -1), keepdim=True).clamp_min(1e-12)


def combined(maps: Tensor) -> Tensor:
    """Return the mean over depths of relative maps (B, M, H, W), as (B, H, W)."""
    return relative(maps).mean(dim=1)


def scale_end(heats: Tensor) -> float:
    """Return where the colours of relative maps end: at their greatest, and not below 10.

    From a tenth of an even share to ten times as much, an even share is in the middle.
    """
    return max(float(heats.max()), 1 / LEAST)


def draw_map(
    axes: "Axes", image: Tensor, heat: Tensor, greatest: float, longest: int = LONGEST
) -> "AxesImage":
    """Draw a relative map (H, W) over an image in grey, up to `greatest`.

    The colours are logarithmic: a net often gives one place fifty times its share, beside which
    on an even scale all others would look alike.

    Args:
        axes: to draw on, in the map's pixels.
        image: (C, H', W') of any size, drawn in its own proportions.
        heat: (H, W); over a photograph, that of few locations is interpolated between them.
        greatest: end of the scale.
        longest: pixels along the image's longer side; a larger one is shrunk.
    """
    from matplotlib.colors import LogNorm

    norm = LogNorm(LEAST, greatest)
    grey = bounded(image, longest).mean(dim=0, keepdim=True)
    draw_photo(axes, grey, (heat.shape[0], heat.shape[1]))
    values = _values(heat, image).clamp(min=LEAST)
    return _lay(axes, values, heat, cmap="magma", norm=norm, interpolation="bilinear", alpha=OPAQUE)


def draw_attribution(
    axes: "Axes", image: Tensor, heat: Tensor, middle: float = 0.0, longest: int = LONGEST
) -> "AxesImage":
    """Draw raw attributions (H, W) over an image in pale grey: red for, blue against.

    The colours are linear, white at `middle`, and end as far from it as the map goes.

    Args:
        axes: to draw on, in the map's pixels.
        image: (C, H', W') of any size, drawn in its own proportions.
        heat: (H, W); over a photograph, that of few locations is interpolated between them.
        middle: the value that is white.
        longest: pixels along the image's longer side; a larger one is shrunk.
    """
    reach = float((heat - middle).abs().max()) or 1.0
    values = _values(heat, image).float()
    weight = ((values - middle).abs() / reach).clamp(0, 1)
    # A photograph shows where little is attributed.
    opaque = (FAINT + (STRONG - FAINT) * weight).numpy() if is_photo(image) else OPAQUE
    # What is dark hides colours.
    pale = (1 + bounded(image, longest).mean(dim=0, keepdim=True)) / 2
    draw_photo(axes, pale, (heat.shape[0], heat.shape[1]))
    return _lay(
        axes,
        values,
        heat,
        cmap="RdBu_r",
        alpha=opaque,
        vmin=middle - reach,
        vmax=middle + reach,
        interpolation="bilinear" if is_photo(image) else "nearest",
    )


def _values(heat: Tensor, image: Tensor) -> Tensor:
    """Return what is drawn of a map over an image."""
    return bounded(smooth(heat)[None], LONGEST)[0] if is_photo(image) else heat


def _lay(axes: "Axes", values: Tensor, heat: Tensor, **look: Any) -> "AxesImage":
    """Draw values over an image that was drawn for a map (H, W); neither extent nor aspect change.

    Args:
        axes: to draw on.
        values: of the map, in any resolution.
        heat: the map.
        look: options of `imshow`.
    """
    drawn = axes.imshow(
        values.float().numpy(),
        extent=extent_of((heat.shape[0], heat.shape[1])),
        aspect=axes.get_aspect(),
        **look,
    )
    axes.set_axis_off()
    return drawn


def locations(heat: Tensor, image: Tensor) -> tuple[int, int] | None:
    """Return how many locations, down and across, a map (H, W) over a photograph is drawn from.

    None where it is drawn as it is: on a small image, or as fine as pixels.
    """
    cells = cells_of(heat)
    drawn = is_photo(image) and cells.coarse
    return (cells.values.shape[0], cells.values.shape[1]) if drawn else None


def with_locations(name: str, few: tuple[int, int] | None) -> str:
    """Return a map's title with the number of locations that it is drawn from."""
    return name if few is None else f"{name}: {few[0]} x {few[1]} locations, interpolated"


def attention_grid(explanation: Observation, labels: Tensor | None = None) -> "Figure":
    """Draw a row for each image and a column for each depth, then all depths together.

    Args:
        explanation: of some images, with maps (B, M, H, W).
        labels: (B,) true classes, to mark right and wrong answers; None for answers alone.

    Raises:
        ValueError: the explanation has no maps.
    """
    if explanation.maps is None:
        raise ValueError("Expected an explanation with attention maps, but it has none.")
    depths = relative(explanation.maps)  # (B, M, H, W)
    rows, columns = len(explanation), depths.shape[1] + 2
    figure = new_figure(1.35 * columns + 0.9, 1.35 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    greatest = scale_end(depths)
    heads = ["image", *(f"map {d + 1}" for d in range(depths.shape[1])), "all maps"]
    for place, head in zip(grid[0], heads, strict=True):
        place.set_title(head, fontsize=9, color=INK)
    drawn: Any = None
    for row in range(rows):
        image = photo_of(explanation, row)
        draw_photo(grid[row, 0], image, explanation.size)
        _answer(grid[row, 0], explanation[row], None if labels is None else int(labels[row]))
        heats: Sequence[Tensor] = [*depths[row], depths[row].mean(dim=0)]
        for place, heat in zip(grid[row, 1:], heats, strict=True):
            drawn = draw_map(place, image, heat, greatest)
    figure.colorbar(
        drawn, ax=grid, fraction=0.03, aspect=30, label=explanation.values.label, format="{x:g}"
    )
    return figure


def _answer(axes: "Axes", explanation: Observation, truth: int | None) -> None:
    """Write an image's answer beside it, where no title gets in the way."""
    answer = int(explanation.predictions[0])
    shade = INK if truth is None else RIGHT if answer == truth else WRONG
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(short(explanation.class_name(answer), 14), fontsize=8, color=shade)
    for spine in axes.spines.values():
        spine.set_visible(False)
