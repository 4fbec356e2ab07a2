"""Reconstructions: the patches, the image rebuilt from them, and the error.

A reconstructor is a model that rebuilds an image from its patches instead of classifying it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import INK, new_figure, rgb_array
from foveal.plotting.patches import draw_frames
from foveal.plotting.photo import dots_per_inch, draw_photo, photo_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

HEADINGS = ("image", "keypoints", "patches", "rebuilt", "error")
CELL = 1.3  # width and height of an image in inches
GREY = 0.5  # value of pixels that no patch shows


def rebuilding_grid(explanation: Observation) -> "Figure":
    """Draw one row per image: image, keypoints, patches, reconstruction and error.

    The error is the absolute difference averaged over channels, on a common scale from 0 to 1.

    Args:
        explanation: explanation of images by a reconstructor.

    Raises:
        ValueError: the explanation has no rebuilt images.
    """
    if explanation.rebuilt is None:
        raise ValueError("Expected an explanation with rebuilt images, but it has none.")
    rows = len(explanation)
    largest = max(map(photo_of, explanation), key=lambda image: max(image.shape[-2:]))
    dpi = dots_per_inch(largest, CELL, CELL)
    figure = new_figure(1.4 * len(HEADINGS) + 0.7, 1.4 * rows + 0.45, dpi)
    grid = figure.subplots(rows, len(HEADINGS), squeeze=False)
    for axes, heading in zip(grid[0], HEADINGS, strict=True):
        axes.set_title(heading, fontsize=9, color=INK)
    mappable: Any = None
    for row, single in zip(grid, explanation, strict=True):
        mappable = _draw_row(row, single)
    bar = figure.colorbar(mappable, ax=grid, fraction=0.025, aspect=30)
    bar.set_label("absolute difference", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    return figure


def _draw_row(row: Sequence["Axes"], explanation: Observation) -> "AxesImage":
    """Draw one image and its reconstruction on the axes of a row; return the map of the error."""
    image = photo_of(explanation)
    rebuilt = explanation.rebuilt
    assert rebuilt is not None
    _, keypoint_axes, _, rebuilt_axes, error_axes = row
    patches = torch.where(explanation.evidence[:, None], explanation.images, GREY)
    # The error is drawn below, with its own colours.
    for axes, picture in zip(row, (image, image, patches[0], rebuilt[0]), strict=False):
        draw_photo(axes, picture, explanation.size, like=image)
        axes.set_axis_off()
    draw_frames(keypoint_axes, explanation, numbers=False)
    difference = (rebuilt - explanation.images)[0]
    error = difference.abs().mean(dim=0)
    aspect = rebuilt_axes.get_aspect()
    mappable = error_axes.imshow(error.numpy(), cmap="magma", vmin=0, vmax=1, aspect=aspect)
    error_axes.set_axis_off()
    error_axes.text(
        0.5,
        -0.03,
        f"MSE {float(difference.square().mean()):.4f}",
        transform=error_axes.transAxes,
        ha="center",
        va="top",
        fontsize=7,
        color=INK,
    )
    return mappable


def sample_grid(images: Tensor, columns: int = 10) -> "Figure":
    """Draw images (B, C, H, W) that a VAE sampled from its prior."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(0.8 * columns, 0.8 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    for axes, image in zip(grid, images, strict=False):
        axes.imshow(rgb_array(image), interpolation="nearest")
    return figure
