"""A post-hoc method's answer to what a classifier looked at, as an Explanation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from foveal.attribution.asking import answer, check_images, given, undisturbed
from foveal.attribution.cost import measured
from foveal.attribution.methods import LAYERED, METHODS
from foveal.attribution.task import Task
from foveal.errors import UserError, at_least_one, unknown_name
from foveal.explanation import Explanation
from foveal.logits import Targets, class_logits, class_numbers, predictions
from foveal.models.image_model import ImageModel
from foveal.models.images import Images, as_images
from foveal.precision import at_least_single, check_finite

PIXELS = 2**20  # in one pass; for a gradient, all features of a backbone are kept


def attribute(
    model: nn.Module,
    images: Images,
    method: str,
    *,
    targets: Targets | None = None,
    batch_size: int = 64,
    classes: Sequence[str] = (),
    layer: str | None = None,
    reshape: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
) -> Explanation:
    """Return how much each pixel speaks for a class, by a method that asks after the decision.

    The model stays as it was: its mode, its device, its gradients; so do the caller's random
    numbers, and the same call gives the same maps.

    Args:
        model: any classifier that maps images in [0, 1] to logits, of Foveal or not: (B, classes)
            for a softmax, or (B, 1) for the sigmoid of class 1 against class 0.
        images: (B, C, H, W), B of any size, floats in [0, 1]: a tensor, a NumPy array, or a list
            of either (C, H, W).
        method: a name of `METHODS`.
        targets: (B,) numbers of the classes asked about; the model's answers if not given.
        batch_size: images in one forward pass, also where a method makes hundreds of one image;
            bounds the memory. Of large images fewer, `PIXELS` in all.
        classes: a name for each class; those that the model knows if not given. One alone is
            class 1 of a single logit.
        layer: for grad-cam and layer-cam, the name of a module to read features from; one is found
            if not given. Its output may be (B, channels, h, w), (B, h, w, channels) or
            (B, tokens, channels), a grid of tokens behind a class token; of a tuple the first.
        reshape: makes (B, channels, h, w) of that output, and of its gradient, where its shape
            does not show which axis is which.
        seed: of the masks of rise.

    Returns:
        An explanation with the logits of a plain forward pass, signed raw maps (B, 1, H, W) and
        the measured cost.

    Raises:
        ValueError: the images are not of the model's shape or type.
        UserError: no such method, target or layer; the model does not return logits, or has none
            of the layers that the method needs; or its logits or the maps are not finite.

    Example:
        >>> import torch
        >>> from foveal.models import SmallCNN
        >>> explanation = attribute(SmallCNN(), torch.rand(2, 1, 28, 28), "gradient-x-input")
        >>> tuple(explanation.maps.shape), explanation.cost
        ((2, 1, 28, 28), 3.0)
    """
    _check(method, layer, reshape)
    batch_size = at_least_one("batch_size", batch_size)
    images = as_images(images)
    check_images(model, images)
    with undisturbed(model):
        channels, height, width = images.shape[1:]
        batch_size = max(1, min(batch_size, PIXELS // (height * width)))
        batches = images.split(batch_size)
        answers = [answer(model, given(model, batch)).cpu() for batch in batches]
        logits = at_least_single(torch.cat(answers))
        check_finite("The logits of the model", logits)
        known = class_logits(logits).shape[1]
        chosen = (
            predictions(logits) if targets is None else class_numbers(targets, len(images), known)
        )
        task = Task(model, (channels, height, width), batch_size, seed, layer, reshape)
        asked = METHODS[method](task)
        cost = measured(task, method, asked)
        maps = []
        for batch, numbers in zip(batches, chosen.split(batch_size), strict=True):
            moved = given(model, batch)
            maps.append(at_least_single(asked(moved, numbers.to(moved.device))).cpu())
    found = torch.cat(maps)
    check_finite(f"The maps of {method}", found)
    if isinstance(model, ImageModel):
        classes = classes or model.inputs.classes
    return Explanation(
        images=images.detach().cpu(),
        logits=logits,
        maps=found,
        classes=tuple(classes),
        method=method,
        cost=cost,
    )


def _check(
    method: str,
    layer: str | None,
    reshape: Callable[[Tensor], Tensor] | None,
) -> None:
    if method not in METHODS:
        raise unknown_name("attribution method", method, METHODS)
    if layer is not None and method not in LAYERED:
        raise UserError(f"Only {' and '.join(LAYERED)} read a layer; {method} takes none.")
    if reshape is not None and layer is None:
        raise UserError("Expected a layer with reshape, the name of the module that it is for.")
