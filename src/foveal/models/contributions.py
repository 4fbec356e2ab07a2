"""Exact contributions: the terms of logits that are sums over locations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.errors import at_least_one
from foveal.foundation.modes import evaluation_mode
from foveal.foundation.precision import at_least_single, check_finite
from foveal.images.geometry import to_px
from foveal.models.image_model import ImageModel
from foveal.models.images import Images, as_images
from foveal.observation.logits import Targets, class_indices, class_logits, predictions
from foveal.observation.values import TERMS

CONTRIBUTIONS = "contributions"  # `method` of explanations by contributions


@dataclass(frozen=True)
class Terms:
    """Features of one or more depths, and the function that sums them up to logits.

    Attributes:
        local: features (B, C_d, h_d, w_d) of each depth.
        strides: pixels of the image per location of each depth, or None if the features are spread
            uniformly over the image.
        decide: local features -> logits (B, classes); linear up to a constant.
    """

    local: list[Tensor]
    strides: Sequence[int | None]
    decide: Callable[[Sequence[Tensor]], Tensor]


class Additive(Protocol):
    """A classifier whose logits are sums over locations, with access to the terms."""

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit.

        Args:
            images: (B, C, H, W), B of any size, floats in [0, 1], as in `explain`.
            targets: (B,) indices of the classes explained; the predictions if not given.
            batch_size: images per forward pass, which bounds the memory.

        Returns:
            An explanation with signed maps (B, 1, H, W), in one forward pass.

        Raises:
            UserError: the images are not of the model's shape or type, or the targets are not one
                class index per image.
        """


class SumsOverLocations(Additive, Protocol):
    """An additive classifier whose terms belong to locations of its features."""

    def terms(self, images: Tensor) -> Terms:
        """Return features of normalised images (B, C, H, W), and the function that sums them up."""


def location_contributions(
    model: ImageModel, images: Images, targets: Targets | None, batch_size: int
) -> Explanation:
    """Return the contribution of each location to a logit, divided uniformly over its pixels.

    Arguments, result and errors as in `Additive.contributions`.
    """
    batch_size = at_least_one("batch_size", batch_size)
    images = as_images(images)
    model.check(images)
    check_finite("The images", images)
    chosen = None
    if targets is not None:
        chosen = class_indices(targets, len(images), max(model.num_classes, 2))
    indices = torch.arange(len(images)).split(batch_size)
    with evaluation_mode(model):
        results = [
            _batch_contributions(model, images[batch], None if chosen is None else chosen[batch])
            for batch in indices
        ]
    logits, maps = (torch.cat(batches) for batches in zip(*results, strict=True))
    return Explanation(
        images=images.cpu(),
        logits=logits,
        maps=maps,
        classes=tuple(model.inputs.classes),
        method=CONTRIBUTIONS,
        values=TERMS,
    )


def _batch_contributions(
    model: ImageModel, images: Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return logits and maps (B, 1, H, W) of one batch, on the CPU."""
    with torch.no_grad():
        terms = cast(SumsOverLocations, model).terms(model.normalised(images))
    with torch.enable_grad():
        local = [features.detach().requires_grad_() for features in terms.local]
        logits = terms.decide(local)
        chosen = predictions(logits) if targets is None else targets.to(logits.device)
        score = class_logits(logits).gather(1, chosen[:, None]).sum()
        gradients = torch.autograd.grad(score, local)
    size = (images.shape[-2], images.shape[-1])
    maps = [
        spread_over_pixels((gradient * features.detach()).sum(dim=1, keepdim=True), size, stride)
        for gradient, features, stride in zip(gradients, local, terms.strides, strict=True)
    ]
    total = torch.stack(maps).sum(dim=0)
    return at_least_single(logits.detach().cpu()), at_least_single(total.cpu())


def spread_over_patches(explanation: Explanation, values: Tensor) -> Tensor:
    """Return values of patches (B, K) divided uniformly over their pixels (B, 1, H, W).

    Sums are preserved.

    Args:
        explanation: explanation of B images by patches; a patch with a scale is a square with a
            side of P x scale pixels.
        values: one value per patch.
    """
    keypoints, side = explanation.keypoints, explanation.patch_size
    assert keypoints is not None
    assert side is not None
    scales = explanation.scales
    reach = side / 2 if scales is None else side * scales[..., None] / 2  # (B, K, 1)
    centre, (height, width) = to_px(keypoints, explanation.size), explanation.size
    first, last = centre - reach, centre + reach
    pixels = torch.arange(max(height, width))
    columns = (pixels[:width] > first[..., :1]) & (pixels[:width] < last[..., :1])  # (B, K, W)
    rows = (pixels[:height] > first[..., 1:]) & (pixels[:height] < last[..., 1:])
    area = rows.sum(dim=-1) * columns.sum(dim=-1)
    per_pixel = values / area.clamp_min(1)
    return torch.einsum("bkh,bkw,bk->bhw", rows.float(), columns.float(), per_pixel)[:, None]


def spread_over_pixels(values: Tensor, size: tuple[int, int], stride: int | None = None) -> Tensor:
    """Return values of locations (B, 1, h, w) divided uniformly over their pixels (B, 1, H, W).

    Sums are preserved.

    Args:
        values: one value per location; a location spans at least one pixel.
        size: height and width of the image in pixels.
        stride: pixels per location, the last of which may be partly outside the image; None if the
            locations are spread uniformly over the image.
    """
    rows, columns = (
        location_indices(pixels, locations, stride).to(values.device)
        for pixels, locations in zip(size, values.shape[-2:], strict=True)
    )
    height, width = (
        indices.bincount(minlength=locations).clamp_min(1)
        for indices, locations in zip((rows, columns), values.shape[-2:], strict=True)
    )
    per_pixel = values / (height[:, None] * width)
    return per_pixel[..., rows[:, None], columns]


def location_indices(pixels: int, locations: int, stride: int | None) -> Tensor:
    """Return the index of the location that contains each pixel along a side (pixels,)."""
    if stride is not None:
        return (torch.arange(pixels) // stride).clamp_max(locations - 1)
    indices = torch.arange(locations, dtype=torch.float64)
    return F.interpolate(indices[None, None], pixels, mode="nearest-exact")[0, 0].long()
