"""Exact contributions: the terms of logits that are sums over locations.

A contribution is the term of one location (or patch) in the sum that is the logit of a class. Maps
of contributions show each term divided uniformly over the pixels of its location.
"""

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

CONTRIBUTIONS = "contributions"  # the name in `method` of such explanations


@dataclass(frozen=True)
class Terms:
    """Features at one or more depths (stages of a backbone), and how logits follow from them.

    Attributes:
        local: local features (B, C_d, h_d, w_d) of each depth.
        strides: for each depth, pixels of the image per location along a side; None if its
            locations divide the image equally.
        decide: turns local features, in the order of `local`, into logits (B, classes). For exact
            contributions it must be a linear function plus a constant.
    """

    local: list[Tensor]
    strides: Sequence[int | None]
    decide: Callable[[Sequence[Tensor]], Tensor]


class Additive(Protocol):
    """A classifier whose logits are sums over locations, and that returns the terms."""

    def contributions(
        self, images: Images, targets: Targets | None = None, batch_size: int = 256
    ) -> Explanation:
        """Return the contribution of each location to a logit.

        Args:
            images: (B, C, H, W), any number B, floats in [0, 1]; of the types that `explain`
                accepts.
            targets: (B,) index of the class to explain for each image; if None, the predictions.
            batch_size: images per forward pass, which limits the memory.

        Returns:
            An explanation with one map (B, 1, H, W), which is negative where a location lowers the
            logit.

        Raises:
            UserError: the images are not of the model's shape or type, or the targets are not one
                class index per image.
        """


class SumsOverLocations(Additive, Protocol):
    """An additive classifier whose terms belong to locations of its features."""

    def terms(self, images: Tensor) -> Terms:
        """Return features of normalised images (B, C, H, W), and how logits follow from them."""


def location_contributions(
    model: ImageModel, images: Images, targets: Targets | None, batch_size: int
) -> Explanation:
    """Return the contribution of each location to a logit, divided uniformly over its pixels.

    The model must have a method `terms` (`SumsOverLocations`). The other arguments, the result and
    the errors are those of `Additive.contributions`.
    """
    batch_size = at_least_one("batch_size", batch_size)
    images = as_images(images)
    model.check(images)
    check_finite("The images", images)
    indices = None
    if targets is not None:
        indices = class_indices(targets, len(images), max(model.num_classes, 2))
    batches = torch.arange(len(images)).split(batch_size)
    with evaluation_mode(model):
        results = [
            _batch_contributions(model, images[batch], None if indices is None else indices[batch])
            for batch in batches
        ]
    logits, maps = (torch.cat(tensors) for tensors in zip(*results, strict=True))
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
    """Return logits and maps (B, 1, H, W) of one batch, on the CPU.

    The terms of a linear function are its gradient times its arguments.

    Args:
        model: a model with a method `terms`.
        images: (B, C, H, W) in [0, 1].
        targets: (B,) indices of the classes to explain; if None, the predictions.
    """
    with torch.no_grad():
        terms = cast(SumsOverLocations, model).terms(model.normalised(images))
    with torch.enable_grad():
        local = [features.detach().requires_grad_() for features in terms.local]
        logits = terms.decide(local)
        indices = predictions(logits) if targets is None else targets.to(logits.device)
        score = class_logits(logits).gather(1, indices[:, None]).sum()
        gradients = torch.autograd.grad(score, local)
    size = (images.shape[-2], images.shape[-1])
    maps = [
        spread_over_pixels((gradient * features.detach()).sum(dim=1, keepdim=True), size, stride)
        for gradient, features, stride in zip(gradients, local, terms.strides, strict=True)
    ]
    total = torch.stack(maps).sum(dim=0)
    return at_least_single(logits.detach().cpu()), at_least_single(total.cpu())


def spread_over_patches(explanation: Explanation, values: Tensor) -> Tensor:
    """Return values of patches divided uniformly over their pixels, as maps (B, 1, H, W).

    The sum of the values of an image is preserved. Where patches overlap, their values are added.

    Args:
        explanation: explanation of B images by K patches; a patch with a scale counts as a square
            with a side of P x scale pixels.
        values: (B, K), one value per patch.
    """
    keypoints, side = explanation.keypoints, explanation.patch_size
    assert keypoints is not None
    assert side is not None
    scales = explanation.scales
    half_side = side / 2 if scales is None else side * scales[..., None] / 2  # (B, K, 1)
    height, width = explanation.size
    centre = to_px(keypoints, explanation.size)
    low, high = centre - half_side, centre + half_side  # (B, K, 2), edges (x, y) in pixels
    pixels = torch.arange(max(height, width))
    columns = (pixels[:width] > low[..., :1]) & (pixels[:width] < high[..., :1])  # (B, K, W)
    rows = (pixels[:height] > low[..., 1:]) & (pixels[:height] < high[..., 1:])
    area = rows.sum(dim=-1) * columns.sum(dim=-1)
    per_pixel = values / area.clamp_min(1)
    return torch.einsum("bkh,bkw,bk->bhw", rows.float(), columns.float(), per_pixel)[:, None]


def spread_over_pixels(values: Tensor, size: tuple[int, int], stride: int | None = None) -> Tensor:
    """Return values of locations divided uniformly over their pixels, as maps (B, 1, H, W).

    The sum of the values of an image is preserved.

    Args:
        values: (B, 1, h, w), one value per location; a location spans at least one pixel.
        size: height and width of the image in pixels.
        stride: pixels per location along a side; the last locations may extend beyond the image.
            None if the locations divide the image equally.
    """
    # For each row and column of pixels, the row or column of locations that contains it.
    rows, columns = (
        location_indices(pixels, locations, stride).to(values.device)
        for pixels, locations in zip(size, values.shape[-2:], strict=True)
    )
    # Height and width in pixels of each row and column of locations.
    heights, widths = (
        indices.bincount(minlength=locations).clamp_min(1)
        for indices, locations in zip((rows, columns), values.shape[-2:], strict=True)
    )
    per_pixel = values / (heights[:, None] * widths)
    return per_pixel[..., rows[:, None], columns]


def location_indices(pixels: int, locations: int, stride: int | None) -> Tensor:
    """Return, for each pixel along a side, the index of the location that contains it (pixels,).

    Args:
        pixels: number of pixels along the side.
        locations: number of locations along the side.
        stride: pixels per location; None if the locations divide the side equally.
    """
    if stride is not None:
        return (torch.arange(pixels) // stride).clamp_max(locations - 1)
    indices = torch.arange(locations, dtype=torch.float64)
    return F.interpolate(indices[None, None], pixels, mode="nearest-exact")[0, 0].long()
