"""Maps over the image: attention on a scale that is the same for all, attributions by sign."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from foveal.plotting.canvas import INK, RIGHT, WRONG, new_figure, pixels, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL = "attention, times an even share"
ATTRIBUTION = "attribution"
TERMS = "added to the logit, a pixel"  # of `contributions`, whose unit is known
NO_ZERO = ("rise",)  # methods whose zero says nothing: their maps are drawn around their mean
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


def draw_map(axes: "Axes", image: Tensor, heat: Tensor, greatest: float) -> Any:
    """Draw a relative map (H, W) over an image (C, H, W) in grey, up to `greatest`.

    The colours are logarithmic: a net often gives one place fifty times its share, beside which
    on an even scale all others would look alike.
    """
    from matplotlib.colors import LogNorm

    norm = LogNorm(LEAST, greatest)
    grey = image.mean(dim=0, keepdim=True)
    axes.imshow(pixels(grey), interpolation="nearest")
    drawn = axes.imshow(
        heat.clamp(min=LEAST).numpy(), cmap="magma", alpha=0.65, norm=norm, interpolation="bilinear"
    )
    axes.set_axis_off()
    return drawn


def draw_attribution(axes: "Axes", image: Tensor, heat: Tensor, middle: float = 0.0) -> Any:
    """Draw raw attributions (H, W) over an image (C, H, W) in pale grey: red for, blue against.

    The colours are linear, white at `middle`, and end as far from it as the map goes.
    """
    reach = float((heat - middle).abs().max()) or 1.0
    pale = (1 + image.mean(dim=0, keepdim=True)) / 2  # what is dark hides colours
    axes.imshow(pixels(pale), interpolation="nearest")
    drawn = axes.imshow(
        heat.float().numpy(),
        cmap="RdBu_r",
        alpha=0.65,
        vmin=middle - reach,
        vmax=middle + reach,
        interpolation="nearest",
    )
    axes.set_axis_off()
    return drawn


def attention_grid(explanation: Any, labels: Tensor | None = None) -> "Figure":
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
        grid[row, 0].imshow(pixels(explanation.images[row]), interpolation="nearest")
        _answer(grid[row, 0], explanation[row], None if labels is None else int(labels[row]))
        heats: Sequence[Tensor] = [*depths[row], depths[row].mean(dim=0)]
        for place, heat in zip(grid[row, 1:], heats, strict=True):
            drawn = draw_map(place, explanation.images[row], heat, greatest)
    figure.colorbar(drawn, ax=grid, fraction=0.03, aspect=30, label=LABEL, format="{x:g}")
    return figure


def _answer(axes: "Axes", explanation: Any, truth: int | None) -> None:
    """Write an image's answer beside it, where no title gets in the way."""
    answer = int(explanation.predictions[0])
    shade = INK if truth is None else RIGHT if answer == truth else WRONG
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel(short(explanation.class_name(answer), 14), fontsize=8, color=shade)
    for spine in axes.spines.values():
        spine.set_visible(False)
