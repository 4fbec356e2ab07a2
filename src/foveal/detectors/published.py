"""The detectors of the project "Unboxing the Black Box" as published, defects included."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.detectors.detector import Detector, Located
from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.errors import UserError
from foveal.foundation.precision import at_least_single
from foveal.foundation.ranges import Channels, Keypoints
from foveal.images import View
from foveal.images.geometry import from_aligned

KINDS = ("focus", "corners", "zoom")
HARRIS_K = 0.04  # Harris' constant


class PublishedDetector(Detector):
    """The detectors of the original project's focus, corners and zoom models.

    The original project is "Unboxing the Black Box: Explainable and Efficient CNNs with Focus and
    Attention". Its defects are preserved; `foveal.models.presets.published` lists them.

    Args:
        kind: model whose detector this is: `focus`, `corners` or `zoom`.
        keypoints: number K of keypoints.
        patch_size: points P along a patch's side, at least 2.
        in_channels: channels of the images.

    Raises:
        UserError: an argument is invalid.
    """

    min_side = 2
    scaled = True

    def __init__(
        self,
        kind: Annotated[str, OneOf(KINDS)] = "focus",
        keypoints: Keypoints = 3,
        patch_size: Annotated[int, Range(2, 1024)] = 5,
        in_channels: Channels = 1,
    ):
        super().__init__()
        self.kind, self.keypoints = kind, keypoints
        self.patch_size, self.in_channels = patch_size, in_channels
        self.layers = None if kind == "corners" else _regressor(in_channels, keypoints)

    def forward(self, view: View) -> Located:
        """Return keypoints for a view, and the spacing of the points of a patch as scales."""
        images = view.whole()
        if self.layers is None:
            aligned = _transposed_corners(images, self.keypoints, border=self.patch_size)
        else:
            aligned = self.layers(images).unflatten(1, (self.keypoints, 2)).clamp(-1, 1)
        xy = from_aligned(aligned, view.size)
        return Located(xy, torch.full_like(xy[..., 0], self._spacing(view.size[0])))

    def _spacing(self, height: int) -> float:
        """Return the pixels between neighbouring points of a patch, from first to last a span."""
        span = 2 * self.patch_size * (height - 1) / height  # 9.6 for 5 points in 28 pixels
        if self.kind == "zoom":
            span = height - 1  # the whole image
        return span / (self.patch_size - 1)


def _regressor(in_channels: int, keypoints: int) -> nn.Sequential:
    """Return the layers of `focus` and `zoom`, from images to 2 coordinates per keypoint."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 2 * keypoints),
    )


def _harris(grey: Tensor) -> Tensor:
    """Return Harris' response (B, 1, H, W) from Prewitt gradients and a 3x3 binomial window."""
    ones, ramp, binomial = grey.new_tensor([[1, 1, 1], [-1, 0, 1], [0.25, 0.5, 0.25]])
    prewitt = torch.stack([torch.outer(ones, ramp), torch.outer(ramp, ones)])[:, None]
    dx, dy = F.conv2d(grey, prewitt, padding=1).split(1, dim=1)
    window = torch.outer(binomial, binomial)[None, None]
    xx, yy, xy = (F.conv2d(product, window, padding=1) for product in (dx * dx, dy * dy, dx * dy))
    return xx * yy - xy**2 - HARRIS_K * (xx + yy) ** 2


@torch.no_grad()
def _transposed_corners(images: Tensor, count: int, border: int) -> Tensor:
    """Return the pixels with the strongest Harris responses, with transposed coordinates.

    Args:
        images: (B, C, H, W).
        count: number K of pixels.
        border: width in pixels of the border whose responses are set to 0.

    Returns:
        (B, K, 2) coordinates in [-1, 1], as (row, column) instead of (x, y).
    """
    height, width = images.shape[-2:]
    if height * width < count:
        raise UserError(f"Expected at least {count} pixels, but got {height}x{width}.")
    grey = at_least_single(images).mean(dim=1, keepdim=True)
    response = _harris(grey)[:, 0]  # (B, H, W)
    inside = torch.zeros_like(response)
    inside[:, border : height - border, border : width - border] = 1
    index = (response * inside).flatten(1).topk(count, dim=1).indices  # (B, K)
    row = torch.div(index, width, rounding_mode="floor") / height
    column = index % width / width
    return (torch.stack([row, column], dim=-1) * 2 - 1).to(grey.dtype)
