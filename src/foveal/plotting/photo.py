"""Original images, drawn with their own aspect ratio below maps and frames."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from foveal.observation.tensors import Observation
from foveal.plotting.canvas import DPI, rgb_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_SIDE_PX = 1600  # maximum length in pixels of the longer side as drawn
MIN_PHOTO_PX = 128  # minimum longer side of a photograph; smaller images are drawn as pixels
MAX_ASPECT = 8  # maximum ratio of the sides as drawn; narrower strips would be invisible
MAX_DPI = 600  # maximum dots per inch
# Left, right, bottom and top edge, as matplotlib expects them.
Extent = tuple[float, float, float, float]


def photo_of(explanation: Observation, index: int = 0) -> Tensor:
    """Return the image (C, H', W') to draw: the original if there is one, or the model's input."""
    return explanation.originals[index] if explanation.originals else explanation.images[index]


def is_photo(image: Tensor) -> bool:
    """Return whether an image (C, H', W') is too large for individual pixels to be visible."""
    return max(image.shape[-2:]) >= MIN_PHOTO_PX


def draw_photo(
    axes: "Axes",
    image: Tensor,
    size: tuple[int, int],
    longest: int = MAX_SIDE_PX,
    like: Tensor | None = None,
) -> None:
    """Draw an image with its own aspect ratio, in the coordinates of an image of another size.

    Args:
        axes: to draw on.
        image: (C, H', W') in [0, 1].
        size: height H and width W in pixels of the maps and frames that are drawn over the image.
        longest: maximum length in pixels of the image's longer side; a larger image is downsampled
            by area.
        like: another image, whose aspect ratio is used; None for the image's own.
    """
    height, width = size
    axes.imshow(
        rgb_array(downsample(image, longest)),
        interpolation="lanczos" if is_photo(image) else "nearest",
        extent=extent_of(size),
        aspect=width / height / aspect_ratio(image if like is None else like),
    )


def extent_of(size: tuple[int, int]) -> Extent:
    """Return the edges of an image of a size (H, W); (0, 0) is the centre of its first pixel."""
    height, width = size
    return (-0.5, width - 0.5, height - 0.5, -0.5)


def downsample(image: Tensor, longest: int) -> Tensor:
    """Return an image (C, H', W') downsampled by area to at most `longest` pixels per side."""
    scale = longest / max(image.shape[-2:])
    if scale >= 1:
        return image
    height, width = (max(1, round(scale * side)) for side in image.shape[-2:])
    return F.interpolate(image[None].float(), (height, width), mode="area")[0]


def aspect_ratio(image: Tensor) -> float:
    """Return the ratio of width to height of an image as drawn, limited by `MAX_ASPECT`."""
    return min(max(image.shape[-1] / image.shape[-2], 1 / MAX_ASPECT), MAX_ASPECT)


def dots_per_inch(image: Tensor, width: float, height: float, limit: float = MAX_DPI) -> float:
    """Return the resolution at which an image is drawn with all of its pixels, within limits.

    Images with more than `MAX_SIDE_PX` pixels along the longer side are drawn with that many.

    Args:
        image: (C, H', W').
        width: available width in inches.
        height: available height in inches.
        limit: maximum dots per inch; the minimum is `DPI`.
    """
    drawn_width = min(width, height * aspect_ratio(image))
    drawn_height = drawn_width / aspect_ratio(image)
    scale = min(1.0, MAX_SIDE_PX / max(image.shape[-2:]))
    dpi = scale * max(image.shape[-1] / drawn_width, image.shape[-2] / drawn_height)
    return min(max(DPI, dpi), limit)
