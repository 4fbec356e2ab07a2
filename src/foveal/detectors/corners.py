"""Corner detectors that are not learned: maxima of the corner responses that kornia computes.

A response is a value at each pixel that is high at corners and low or negative elsewhere.
"""

from abc import abstractmethod
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.detectors.detector import Detector, Located
from foveal.foundation.arguments import Range
from foveal.foundation.errors import UserError, extra
from foveal.foundation.precision import at_least_single
from foveal.foundation.ranges import Keypoints
from foveal.images import View
from foveal.images.geometry import from_px

Radius = Annotated[int, Range(0, 64)]
Border = Annotated[int, Range(0, 4096)]
HarrisConstant = Annotated[float, Range(0, 1)]
# Minimum response of a corner, relative to the strongest one in the image: the value that is
# usually passed to OpenCV's goodFeaturesToTrack as `qualityLevel`.
QUALITY = 0.01


def strongest_maxima(response: Tensor, count: int, radius: int, border: int) -> Tensor:
    """Return the `count` strongest local maxima of a response as keypoints, strongest first.

    A maximum exceeds a hundredth of the image's strongest response and is the highest within
    `radius` pixels. If there are fewer than `count`, maxima of the absolute response follow, which
    are edges, then the strongest other pixels, so that patches do not show empty background. Pixels
    within `border` pixels of the edge are chosen only if all others have been.

    Args:
        response: (B, 1, H, W).
        count: number K of keypoints.
        radius: half the side in pixels of the square within which a maximum is unique.
        border: width in pixels of the border whose pixels come last.

    Returns:
        Keypoints (B, K, 2) in grid units, each at a pixel centre.

    Raises:
        UserError: the image has fewer pixels than keypoints.
    """
    height, width = response.shape[-2:]
    if height * width < count:
        raise UserError(
            f"Expected images of at least {count} pixels, one per keypoint, but got "
            f"{height}x{width}. Choose fewer keypoints or larger images."
        )
    inside = torch.zeros_like(response)
    inside[..., border : height - border, border : width - border] = 1
    magnitude = response.abs()
    scale = magnitude.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(magnitude.dtype).tiny)
    scaled = magnitude / scale
    is_edge = _is_maximum(magnitude, radius) & (scaled > QUALITY)
    is_corner = _is_maximum(response, radius) & (scaled > QUALITY) & (response > 0)
    # `scaled` is at most 1: 4 for inner pixels ranks them above the border, and in both groups 2
    # for corners and 1 for edges rank these above the other pixels.
    rank = scaled + torch.where(is_corner, 2, torch.where(is_edge, 1, 0)) + 4 * inside
    index = rank.flatten(1).topk(count, dim=1).indices  # (B, count)
    xy_px = torch.stack([index % width, index // width], dim=-1)
    return from_px(xy_px.to(response.dtype), (height, width))


def _is_maximum(values: Tensor, radius: int) -> Tensor:
    """Return which pixels have the maximum of the square with side 2 `radius` + 1 around them."""
    return F.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius) == values


class Corners(Detector):
    """The strongest corners by a response that a subclass computes and that is not learned.

    Args:
        keypoints: number K of keypoints.
        radius: a corner has the highest response within this many pixels in x and y.
        border: minimum distance of corners from the edge in pixels; pixels nearer to the edge are
            chosen only if no others are left.
    """

    min_side = 4  # kornia blurs over 7 pixels: it mirrors 3 pixels at each edge, which takes 4

    def __init__(self, keypoints: Keypoints, radius: Radius, border: Border):
        super().__init__()
        self.keypoints, self.radius, self.border = keypoints, radius, border

    @abstractmethod
    def response(self, grey: Tensor) -> Tensor:
        """Return the corner response at each pixel of grey images (B, 1, H, W)."""

    @torch.no_grad()
    def forward(self, view: View) -> Located:
        """Return the strongest corners (B, K, 2) of a view's images, without a gradient."""
        # In half precision too many responses would be equal.
        grey = at_least_single(view.whole()).mean(dim=1, keepdim=True)
        response = self.response(grey)
        return Located(strongest_maxima(response, self.keypoints, self.radius, self.border))


class Harris(Corners):
    """The strongest Harris corners (Harris & Stephens 1988).

    Args:
        keypoints: number K of keypoints.
        k: Harris' constant, usually 0.04 to 0.06.
        radius: a corner has the highest response within this many pixels in x and y.
        border: minimum distance of corners from the edge in pixels; pixels nearer to the edge are
            chosen only if no others are left.
    """

    def __init__(
        self, keypoints: Keypoints, k: HarrisConstant = 0.04, radius: Radius = 2, border: Border = 2
    ):
        super().__init__(keypoints, radius, border)
        self.k = k

    def response(self, grey: Tensor) -> Tensor:
        """Return Harris' response at each pixel of grey images (B, 1, H, W)."""
        with extra("kornia", "corners"):
            from kornia.feature import harris_response

        return harris_response(grey, self.k)


class ShiTomasi(Corners):
    """The corners with the largest minimum eigenvalue of the structure tensor (Shi & Tomasi 1994).

    The arguments are those of `Corners`.
    """

    def __init__(self, keypoints: Keypoints, radius: Radius = 2, border: Border = 2):
        super().__init__(keypoints, radius, border)

    def response(self, grey: Tensor) -> Tensor:
        """Return the minimum eigenvalue at each pixel of grey images (B, 1, H, W)."""
        with extra("kornia", "corners"):
            from kornia.feature import gftt_response

        return gftt_response(grey)
