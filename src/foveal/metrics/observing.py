"""Observation of a model in evaluation mode over all images of a dataset.

An observation is an explanation that a model computes together with its logits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.foundation.modes import evaluation_mode
from foveal.images import LargeImages, View
from foveal.images.photos import Photos
from foveal.models.image_model import ImageModel


@contextmanager
def evaluating(model: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Set a model to evaluation mode without gradients, and restore its modes on exit.

    Args:
        model: any module.
        gradients: enable gradients, even if the caller has disabled them.
    """
    with (
        evaluation_mode(model),
        torch.inference_mode(not gradients),
        torch.set_grad_enabled(gradients),
    ):
        yield


def as_floats(model: ImageModel, images: Tensor) -> Tensor:
    """Return uint8 images as floats in [0, 1], with the model's dtype and device."""
    return images.to(model.mean.device, model.mean.dtype) / 255


def observe_all(
    model: ImageModel, images: Tensor | Photos | LargeImages, batch_size: int = 500
) -> Explanation:
    """Return logits, keypoints and scales of N images, without their pixels.

    Args:
        model: a model of any family; its mode and device are left unchanged.
        images: uint8 (N, C, H, W), photographs, or large images.
        batch_size: images per forward pass; bounds the memory.

    Returns:
        An explanation whose images, patches and thumbnails have the right shapes, but contain NaN
        instead of pixels, so that they use almost no memory.

    Raises:
        UserError: there are no images, or they are not uint8 or not of the model's shape.
    """
    with evaluating(model):
        views = _views(model, images, batch_size)
        parts = [_without_pixels(model.observe(view)) for view in views]
    first = parts[0]
    count = len(images)
    size = images.size if isinstance(images, LargeImages) else images.shape[-2:]
    return Explanation(
        images=_nans((first.images.shape[1], *size), count),
        logits=torch.cat([part.logits for part in parts]),
        keypoints=_concatenate([part.keypoints for part in parts]),
        patches=None if first.patches is None else _nans(first.patches.shape[1:], count),
        scales=_concatenate([part.scales for part in parts]),
        thumbnail=None if first.thumbnail is None else _nans(first.thumbnail.shape[1:], count),
        task_logits=_concatenate([part.task_logits for part in parts]),
        blocks=first.blocks,
    )


def _views(
    model: ImageModel, images: Tensor | Photos | LargeImages, batch_size: int
) -> Iterator[View]:
    """Yield the batches of images in the form that the model's `observe` takes."""
    count = len(images)
    if isinstance(images, LargeImages):
        for indices in torch.arange(count).split(batch_size):
            yield model.view(images, indices)
        return
    if images.dtype != torch.uint8 or count == 0:
        raise UserError(f"Expected at least 1 uint8 image, but got {count} of {images.dtype}.")
    for batch in images.split(batch_size):
        floats = as_floats(model, batch)
        model.check(floats)
        yield model.view(floats)


def _without_pixels(observed: Explanation) -> Explanation:
    """Return the observation of a batch on the CPU, with the pixels of only its first image.

    Those of the first image are kept for their shapes.
    """
    images, patches, thumbnail = (
        None if tensor is None else tensor[:1].cpu()
        for tensor in (observed.images, observed.patches, observed.thumbnail)
    )
    keypoints, scales, task_logits = (
        None if tensor is None else tensor.cpu()
        for tensor in (observed.keypoints, observed.scales, observed.task_logits)
    )
    assert images is not None
    return Explanation(
        images,
        observed.logits.cpu(),
        keypoints,
        patches,
        scales,
        thumbnail=thumbnail,
        task_logits=task_logits,
        blocks=observed.blocks,
    )


def _nans(shape: Sequence[int], count: int) -> Tensor:
    """Return NaN (count, *shape) in place of pixels, stored as a single value."""
    return torch.tensor(float("nan")).expand(count, *shape)


def _concatenate(parts: list[Tensor | None]) -> Tensor | None:
    """Return the tensors of all batches as one tensor, or None if the model has none."""
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors else None
