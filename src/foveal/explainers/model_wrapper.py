"""Functions that run any classifier without side effects and validate its logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.foundation.modes import evaluation_mode
from foveal.foundation.precision import check_finite
from foveal.models.image_model import ImageModel


@contextmanager
def without_side_effects(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode with gradients enabled, and restore its state on exit.

    The mode of each submodule and the state of the random generators are restored.
    """
    device = reference_tensor(model).device
    devices = [device] if device.type != "cpu" else []
    with (
        evaluation_mode(model),
        torch.random.fork_rng(devices, device_type=device.type),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


def reference_tensor(model: nn.Module) -> Tensor:
    """Return a tensor with the dtype and device that the model's images must have.

    It is the model's first floating-point parameter or buffer. A model without any gets float32 on
    the CPU.
    """
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)


def as_model_input(model: nn.Module, images: Tensor) -> Tensor:
    """Return a detached copy of images with the model's dtype and device."""
    return images.detach().to(reference_tensor(model), copy=True)


def noise_image(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Return an image (1, C, H, W) of noise, always the same, with the model's dtype and device."""
    generator = torch.Generator().manual_seed(0)
    return as_model_input(model, torch.rand(1, *shape, generator=generator))


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (B, classes) of a forward pass without gradients.

    Raises:
        UserError: the model's output is not logits (B, classes).
    """
    logits = model(images)
    if not isinstance(logits, Tensor):
        raise _logits_error(f"a {type(logits).__name__}")
    if logits.ndim != 2 or len(logits) != len(images) or not logits.is_floating_point():
        raise _logits_error(f"{tuple(logits.shape)} of {logits.dtype} for {len(images)} image(s)")
    return logits


def _logits_error(description: str) -> UserError:
    return UserError(
        f"Expected a classifier that returns logits (B, classes) as one tensor of floats, but got "
        f"{description}. Wrap the model in an nn.Module whose forward returns only its logits."
    )


def as_foveal_model(model: nn.Module) -> ImageModel | None:
    """Return the model if it is one of Foveal's, with abilities and class names, or else None."""
    return model if isinstance(model, ImageModel) else None


def check_images(model: nn.Module, images: Tensor) -> None:
    """Raise an error unless images are finite floats (B, C, H, W).

    If the model is one of Foveal's, the images must also have the shape that it expects.

    Raises:
        ValueError: the images have the wrong shape or type.
        UserError: the images contain NaN or infinity.
    """
    foveal_model = as_foveal_model(model)
    if foveal_model is not None:
        foveal_model.check(images)
    elif images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(
            "Expected at least 1 image, as floats (B, C, H, W) in [0, 1], but got "
            f"{tuple(images.shape)} of {images.dtype}."
        )
    check_finite("The images", images)
