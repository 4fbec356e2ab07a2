"""What a reconstructor saw, what it made of that, and what was lost."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, new_figure, pixels
from foveal.plotting.patches import draw_frames
from foveal.plotting.photo import dots_per_inch, draw_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADS = ("image", "where it looks", "what it sees", "rebuilt", "lost")
CELL = 1.3  # inches across an image
GREY = 0.5  # of pixels that no patch shows


def rebuilding_grid(explanation: Observation) -> "Figure":
    """Draw a row for each image: itself, keypoints, patches, what was rebuilt, what was lost.

    Lost is the absolute difference, mean over channels, on one scale from 0 to 1 for all.

    Args:
        explanation: of some images, by a reconstructor.

    Raises:
        ValueError: the explanation has nothing rebuilt.
    """
    if explanation.rebuilt is None:
        raise ValueError("Expected an explanation with rebuilt images, but it has none.")
    rows = len(explanation)
    largest = max((photo_of(one) for one in explanation), key=lambda image: max(image.shape[-2:]))
    dots = dots_per_inch(largest, CELL, CELL)
    figure = new_figure(1.4 * len(HEADS) + 0.7, 1.4 * rows + 0.45, dots)
    grid = figure.subplots(rows, len(HEADS), squeeze=False)
    for place, head in zip(grid[0], HEADS, strict=True):
        place.set_title(head, fontsize=9, color=INK)
    seen = torch.where(explanation.evidence[:, None], explanation.images, GREY)
    lost = (explanation.rebuilt - explanation.images).abs().mean(dim=1)
    drawn: Any = None
    for row, places in enumerate(grid):
        image = photo_of(explanation, row)
        for place, shown in zip(
            places, (image, image, seen[row], explanation.rebuilt[row]), strict=False
        ):
            draw_photo(place, shown, explanation.size, like=image)
            place.set_axis_off()
        draw_frames(places[1], explanation[row], numbers=False)
        aspect = places[3].get_aspect()
        drawn = places[4].imshow(lost[row].numpy(), cmap="magma", vmin=0, vmax=1, aspect=aspect)
        places[4].set_axis_off()
        error = float((explanation.rebuilt[row] - explanation.images[row]).square().mean())
        places[4].text(
            0.5,
            -0.03,
            f"MSE {error:.4f}",
            transform=places[4].transAxes,
            ha="center",
            va="top",
            fontsize=7,
            color=INK,
        )
    bar = figure.colorbar(drawn, ax=grid, fraction=0.025, aspect=30)
    bar.set_label("absolute difference", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def sample_grid(images: Tensor, columns: int = 10) -> "Figure":
    """Draw images (B, C, H, W) that a VAE made from nothing but its prior."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(0.8 * columns, 0.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for place in grid:
        place.set_axis_off()
    for place, image in zip(grid, images, strict=False):
        place.imshow(pixels(image), interpolation="nearest")
    return figure
