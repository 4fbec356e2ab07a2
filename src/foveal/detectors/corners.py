"""Corner detectors without learning: kornia's responses with non-maximum suppression."""

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
QUALITY = 0.01  # the usual quality level of OpenCV's goodFeaturesToTrack


def strongest_maxima(response: Tensor, count: int, radius: int, border: int) -> Tensor:
    """Return the `count` strongest local maxima of a response as keypoints, strongest first.

    A maximum exceeds a hundredth of the image's strongest response, is the highest within `radius`
    pixels, and is at least `border` pixels from the edge. If there are fewer than `count`, edges
    follow (maxima of the absolute response), then the strongest other pixels, to avoid patches of
    empty background.

    Args:
        response: (B, 1, H, W).
        count: number K of keypoints.
        radius: half the side in pixels of the square within which a maximum is unique.
        border: width in pixels of the border that is excluded.

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
    edge = _is_maximum(magnitude, radius) & (scaled > QUALITY)
    corner = _is_maximum(response, radius) & (scaled > QUALITY) & (response > 0)
    rank = scaled + torch.where(corner, 2, torch.where(edge, 1, 0)) + 4 * inside
    index = rank.flatten(1).topk(count, dim=1).indices  # (B, count)
    xy_px = torch.stack([index % width, index // width], dim=-1)
    return from_px(xy_px.to(response.dtype), (height, width))


def _is_maximum(values: Tensor, radius: int) -> Tensor:
    return F.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius) == values


class Corners(Detector):
    """The strongest corners, by a fixed response that is not learned.

    Args:
        keypoints: number K of keypoints.
        radius: minimum distance between two corners in pixels, minus one.
        border: minimum distance of corners from the edge in pixels.
    """

    min_side = 4  # for kornia, which blurs over 7 pixels, mirrored at the border

    def __init__(self, keypoints: Keypoints, radius: Radius, border: Border):
        super().__init__()
        self.keypoints, self.radius, self.border = keypoints, radius, border

    @abstractmethod
    def response(self, grey: Tensor) -> Tensor:
        """Return the corner response at each pixel of grey images (B, 1, H, W)."""

    @torch.no_grad()
    def forward(self, view: View) -> Located:
        """Return the strongest corners (B, K, 2) of a view's images, without a gradient."""
        # Half precision cannot distinguish enough responses.
        grey = at_least_single(view.whole()).mean(dim=1, keepdim=True)
        response = self.response(grey)
        return Located(strongest_maxima(response, self.keypoints, self.radius, self.border))


class Harris(Corners):
    """The strongest Harris corners (Harris & Stephens 1988).

    Args:
        keypoints: number K of keypoints.
        k: Harris' constant, usually 0.04 to 0.06.
        radius: minimum distance between two corners in pixels, minus one.
        border: minimum distance of corners from the edge in pixels.
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
    """The corners with the largest smaller eigenvalue (Shi & Tomasi 1994).

    Args:
        keypoints: number K of keypoints.
        radius: minimum distance between two corners in pixels, minus one.
        border: minimum distance of corners from the edge in pixels.
    """

    def __init__(self, keypoints: Keypoints, radius: Radius = 2, border: Border = 2):
        super().__init__(keypoints, radius, border)

    def response(self, grey: Tensor) -> Tensor:
        """Return the smaller eigenvalue at each pixel of grey images (B, 1, H, W)."""
        with extra("kornia", "corners"):
            from kornia.feature import gftt_response

        return gftt_response(grey)
