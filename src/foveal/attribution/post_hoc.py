"""A post-hoc method's answer to what a classifier looked at, as an Explanation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from foveal.attribution.asking import answer, check_images, given, undisturbed
from foveal.attribution.cost import measured
from foveal.attribution.methods import METHODS
from foveal.attribution.task import Task
from foveal.errors import UserError, unknown_name
from foveal.explanation import Explanation
from foveal.models.image_model import ImageModel


def attribute(
    model: nn.Module,
    images: Tensor,
    method: str,
    *,
    targets: Tensor | Sequence[int] | None = None,
    batch_size: int = 64,
    classes: Sequence[str] = (),
    layer: str | None = None,
    seed: int = 0,
) -> Explanation:
    """Return how much each pixel speaks for a class, by a method that asks after the decision.

    The model stays as it was: its mode, its device, its gradients; so do the caller's random
    numbers, and the same call gives the same maps.

    Args:
        model: any classifier that maps images in [0, 1] to logits (B, classes), of Foveal or not.
        images: (B, C, H, W), B of any size, floats in [0, 1].
        method: a name of `METHODS`.
        targets: (B,) numbers of the classes asked about; the model's answers if not given.
        batch_size: images in one forward pass, also where a method makes hundreds of one image;
            bounds the memory.
        classes: a name for each class; those that the model knows if not given.
        layer: for grad-cam, the name of a module to read features (B, channels, h, w) from; it
            finds one by itself if not given.
        seed: of the masks of rise.

    Returns:
        An explanation with the logits of a plain forward pass, signed raw maps (B, 1, H, W) and
        the measured cost.

    Raises:
        ValueError: the images are not of the model's shape or type.
        UserError: no such method, target or layer; the model does not return logits, or has none
            of the layers that the method needs.

    Example:
        >>> import torch
        >>> from foveal.models import SmallCNN
        >>> explanation = attribute(SmallCNN(), torch.rand(2, 1, 28, 28), "gradient-x-input")
        >>> tuple(explanation.maps.shape), explanation.cost
        ((2, 1, 28, 28), 3.0)
    """
    _check(method, layer, batch_size)
    check_images(model, images)
    with undisturbed(model):
        batches = images.split(batch_size)
        logits = torch.cat([answer(model, given(model, batch)).cpu() for batch in batches])
        chosen = _targets(targets, logits)
        channels, height, width = images.shape[1:]
        task = Task(model, (channels, height, width), batch_size, seed, layer)
        asked = METHODS[method](task)
        cost = measured(task, method, asked)
        maps = []
        for batch, numbers in zip(batches, chosen.split(batch_size), strict=True):
            moved = given(model, batch)
            maps.append(asked(moved, numbers.to(moved.device)).cpu())
    if isinstance(model, ImageModel):
        classes = classes or model.inputs.classes
    return Explanation(
        images=images.detach().cpu(),
        logits=logits,
        maps=torch.cat(maps),
        classes=tuple(classes),
        method=method,
        cost=cost,
    )


def _check(method: str, layer: str | None, batch_size: int) -> None:
    if method not in METHODS:
        raise unknown_name("attribution method", method, METHODS)
    if layer is not None and method != "grad-cam":
        raise UserError(f"Only grad-cam reads a layer; {method} takes none.")
    if batch_size < 1:
        raise UserError(f"Expected a batch_size of at least 1, but got {batch_size}.")


def _targets(targets: Tensor | Sequence[int] | None, logits: Tensor) -> Tensor:
    """Return the classes to ask about (B,), the answers where none are given."""
    if targets is None:
        return logits.argmax(dim=-1)
    chosen = torch.as_tensor(targets).detach().cpu()
    images, known = logits.shape
    if chosen.shape != (images,) or chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise UserError(
            f"Expected targets ({images},), a class number for each image, but got "
            f"{tuple(chosen.shape)} of {chosen.dtype}."
        )
    if chosen.min() < 0 or chosen.max() >= known:
        raise UserError(
            f"Expected targets from 0 to {known - 1}, as the model has {known} classes, but got "
            f"{int(chosen.min())} to {int(chosen.max())}."
        )
    return chosen.long()
