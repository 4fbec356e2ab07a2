"""One pass over many images: what a model answers and where it looks, for all metrics to share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foveal.errors import UserError
from foveal.explanation import Explanation
from foveal.images.photos import Photos
from foveal.models.image_model import ImageModel
from foveal.models.modes import evaluation_mode


@dataclass(frozen=True)
class Looks:
    """What a model answered and where it looked, for N images; all on the CPU.

    Attributes:
        logits: (N, classes).
        size: height and width of the images in pixels.
        keypoints: (N, K, 2) as the classifier received them, or None.
        scales: (N, K) pixels from one patch sample to the next, or None for 1.
        patch_size: side of a patch in samples, or None where there are no patches.
        thumbnail_px: pixels of the thumbnail that is seen beside the patches, 0 for none.
    """

    logits: Tensor
    size: tuple[int, int]
    keypoints: Tensor | None = None
    scales: Tensor | None = None
    patch_size: int | None = None
    thumbnail_px: int = 0


@contextmanager
def evaluating(model: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Put a model in evaluation mode, without gradients; each part gets its own mode back.

    Args:
        model: any module.
        gradients: keep them all the same, even where the caller has switched them off.
    """
    with (
        evaluation_mode(model),
        torch.inference_mode(not gradients),
        torch.set_grad_enabled(gradients),
    ):
        yield


def as_floats(model: ImageModel, images: Tensor) -> Tensor:
    """Return uint8 images as floats in [0, 1], of the model's type and on its device."""
    return images.to(model.mean.device, model.mean.dtype) / 255


def look_over(model: ImageModel, images: Tensor | Photos, batch_size: int = 500) -> Looks:
    """Look at uint8 images (N, C, H, W), `batch_size` of them at a time.

    Raises:
        UserError: there are no images, or they are not uint8.
        ValueError: the images are not of the model's shape.
    """
    if images.dtype != torch.uint8 or len(images) == 0:
        raise UserError(
            f"Expected at least one image of uint8, but got {len(images)} of {images.dtype}."
        )
    with evaluating(model):
        parts = [_observed(model, as_floats(model, batch)) for batch in images.split(batch_size)]
    patches, thumbnail = parts[0].patches, parts[0].thumbnail
    return Looks(
        logits=torch.cat([part.logits for part in parts]),
        size=(images.shape[-2], images.shape[-1]),
        keypoints=_joined([part.keypoints for part in parts]),
        scales=_joined([part.scales for part in parts]),
        patch_size=None if patches is None else patches.shape[-1],
        thumbnail_px=0 if thumbnail is None else thumbnail[0, 0].numel(),
    )


def _observed(model: ImageModel, images: Tensor) -> Explanation:
    model.check(images)
    found = model.observe((images - model.mean) / model.std)
    # Patches and thumbnails are kept for their shape alone: those of 60,000 images are many.
    patches = None if found.patches is None else found.patches[:1].cpu()
    keypoints, scales = (None if t is None else t.cpu() for t in (found.keypoints, found.scales))
    thumbnail = None if found.thumbnail is None else found.thumbnail[:1].cpu()
    return Explanation(
        images[:1], found.logits.cpu(), keypoints, patches, scales, thumbnail=thumbnail
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
