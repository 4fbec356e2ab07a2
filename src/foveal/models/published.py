"""The original project's focus models as they were published, defects included."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.arguments import OneOf, Range, checked
from foveal.errors import UserError
from foveal.explanation import Explanation
from foveal.geometry import extract_patches, from_aligned
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import Inputs
from foveal.precision import at_least_single
from foveal.ranges import Channels, Classes, Keypoints

KINDS = ("focus", "corners", "zoom")
HARRIS_K = 0.04


class PublishedFocus(FocusModel):
    """The focus, corners and zoom models of the original project, rebuilt to compare with.

    They come from "Unboxing the Black Box: Explainable and Efficient CNNs with Focus and
    Attention", and what was wrong with them is kept:

    - A patch of P points is not P pixels: its points span 2P pixels (`focus`, `corners`), or as
      much as the whole image (`zoom`), with nothing averaged between them. The scales that an
      explanation shows are the true spacing.
    - The learned detector averages away all positions before it regresses them (global average
      pooling), so that it can tell what is in the image, but hardly where.
    - Its clamp to [-1, 1] has no gradient outside: a keypoint past the border stays there.
    - `corners` finds (row, column) and reads it as (x, y): the patches are cut at the transposed
      places.
    - Its corners are not suppressed around a maximum, so that all may sit on one corner.
    - The classifier is not told where its patches come from.
    - Patches may leave the image and then hold zeros, the mean image's grey.
    - The last two layers of `focus` have nothing between them but dropout, so that they are one.

    The original took square images; on others the spacing follows from the height.

    Args:
        kind: `focus` (56,928 parameters on MNIST), `corners` or `zoom`.
        keypoints: number K of patches.
        patch_size: points P along a patch's side, at least 2.
        in_channels: channels of the images.
        num_classes: number of classes.
        inputs: what images the model expects.

    Raises:
        UserError: an argument is not what is listed here.
    """

    name = "published"
    least_side = 2

    @checked
    def __init__(
        self,
        kind: Annotated[str, OneOf(KINDS)] = "focus",
        keypoints: Keypoints = 3,
        patch_size: Annotated[int, Range(2, 1024)] = 5,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        self.kind = kind
        self.keypoints = keypoints
        self.patch_size = patch_size
        self.detector = None if kind == "corners" else _place_regressor(in_channels, keypoints)
        self.encode = nn.Sequential(
            nn.Conv2d(in_channels, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * patch_size**2, 64),
            nn.ReLU(),
        )
        tokens = 64 * keypoints
        last = nn.Linear(tokens, num_classes)
        wide = [nn.Dropout(0.25), nn.Linear(tokens, tokens), nn.Dropout(0.5)]
        self.classify = nn.Sequential(*wide, last) if kind == "focus" else last

    def find(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints (B, K, 2) and the true spacing (B, K) for normalised images."""
        if self.detector is None:
            places = _transposed_corners(images, self.keypoints, border=self.patch_size)
        else:
            places = self.detector(images).unflatten(1, (self.keypoints, 2)).clamp(-1, 1)
        keypoints = from_aligned(places, (images.shape[-2], images.shape[-1]))
        return keypoints, self._spacing(images, keypoints)

    def _spacing(self, images: Tensor, keypoints: Tensor) -> Tensor:
        height = images.shape[-2]
        span = 2 * self.patch_size * (height - 1) / height  # 9.6 pixels for 5 points in 28
        if self.kind == "zoom":
            span = height - 1
        return torch.full_like(keypoints[..., 0], span / (self.patch_size - 1))

    def decide(
        self, images: Tensor, keypoints: Tensor, scales: Tensor | None = None
    ) -> Explanation:
        """Classify from the points around keypoints (B, K, 2), spaced as published if not given."""
        if scales is None:
            scales = self._spacing(images, keypoints)
        patches = extract_patches(images, keypoints, self.patch_size, scales)  # (B, K, C, P, P)
        tokens = self.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, 64)
        return Explanation(images, self.classify(tokens.flatten(1)), keypoints, patches, scales)


def _place_regressor(in_channels: int, keypoints: int) -> nn.Sequential:
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
    ones, ramp, bell = grey.new_tensor([[1, 1, 1], [-1, 0, 1], [0.25, 0.5, 0.25]])
    prewitt = torch.stack([torch.outer(ones, ramp), torch.outer(ramp, ones)])[:, None]
    dx, dy = F.conv2d(grey, prewitt, padding=1).split(1, dim=1)
    window = torch.outer(bell, bell)[None, None]
    xx, yy, xy = (F.conv2d(product, window, padding=1) for product in (dx * dx, dy * dy, dx * dy))
    return xx * yy - xy**2 - HARRIS_K * (xx + yy) ** 2


@torch.no_grad()
def _transposed_corners(images: Tensor, count: int, border: int) -> Tensor:
    """Return the strongest responses as (row, column) in [-1, 1], where (x, y) belongs."""
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
