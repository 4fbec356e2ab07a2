"""Images as they were given: drawn in their own proportions, below maps and frames."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import DPI, pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 1600  # pixels along the longer side of what is drawn
LEAST = 128  # pixels along the longer side of a photograph; a smaller image shows its pixels
SLIMMEST = 8  # a strip of more than 1 : 8 is drawn as one of 1 : 8, or it could not be seen
MOST_DOTS = 600  # an inch
Extent = tuple[float, float, float, float]


def photo_of(explanation: Observation, index: int = 0) -> Tensor:
    """Return an image (C, H', W') as it is drawn: as it was given, or else as the model got it."""
    return explanation.originals[index] if explanation.originals else explanation.images[index]


def is_photo(image: Tensor) -> bool:
    """Return whether an image (C, H', W') is too large for its pixels to be seen one by one."""
    return max(image.shape[-2:]) >= LEAST


def draw_photo(
    axes: "Axes",
    image: Tensor,
    size: tuple[int, int],
    longest: int = LONGEST,
    like: Tensor | None = None,
) -> None:
    """Draw an image in its own proportions, in the coordinates of one of another size.

    Args:
        axes: to draw on.
        image: (C, H', W') in [0, 1].
        size: height H and width W in pixels that maps and frames over it have.
        longest: pixels along its longer side; a larger image is shrunk by area.
        like: another image, in whose proportions it is drawn.
    """
    height, width = size
    axes.imshow(
        pixels(bounded(image, longest)),
        interpolation="lanczos" if is_photo(image) else "nearest",
        extent=extent_of(size),
        aspect=width / height / proportion(image if like is None else like),
    )


def extent_of(size: tuple[int, int]) -> Extent:
    """Return the edges of an image of a size, where (0, 0) is the centre of its first pixel."""
    height, width = size
    return (-0.5, width - 0.5, height - 0.5, -0.5)


def bounded(image: Tensor, longest: int) -> Tensor:
    """Return an image (C, H', W') of at most so many pixels a side, of a larger one the means."""
    scale = longest / max(image.shape[-2:])
    if scale >= 1:
        return image
    height, width = (max(1, round(scale * side)) for side in image.shape[-2:])
    return F.interpolate(image[None].float(), (height, width), mode="area")[0]


def proportion(image: Tensor) -> float:
    """Return the width of an image as it is drawn, in times its height."""
    return min(max(image.shape[-1] / image.shape[-2], 1 / SLIMMEST), SLIMMEST)


def dots_per_inch(image: Tensor, width: float, height: float, most: float = MOST_DOTS) -> float:
    """Return the resolution at which an image is drawn with its own pixels.

    Args:
        image: (C, H', W').
        width: inches that it can fill.
        height: inches that it can fill.
        most: at most so many dots; at least they are those of every figure.
    """
    across = min(width, height * proportion(image))
    down = across / proportion(image)
    scale = min(1.0, LONGEST / max(image.shape[-2:]))
    dots = scale * max(image.shape[-1] / across, image.shape[-2] / down)
    return min(max(DPI, dots), most)
