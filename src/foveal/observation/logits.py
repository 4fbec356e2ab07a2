"""Logits -> probabilities and predictions, for one logit per class or a single binary logit.

A single logit (B, 1) is the log-odds of class 1 against class 0, as `BCEWithLogitsLoss` trains
it. Its probabilities are a sigmoid; a softmax over it would give 1 for every image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.foundation.errors import UserError

Targets = Tensor | Sequence[int]


def class_logits(logits: Tensor) -> Tensor:
    """Return a logit per class (B, classes); for a single logit z, -z for class 0 and z for 1."""
    return torch.cat([-logits, logits], dim=-1) if logits.shape[-1] == 1 else logits


def probabilities(logits: Tensor) -> Tensor:
    """Return probabilities (B, classes); (B, 2) for a single logit."""
    if logits.shape[-1] == 1:
        return class_logits(logits).sigmoid()
    return logits.softmax(dim=-1)


def predictions(logits: Tensor) -> Tensor:
    """Return the most probable class (B,); 0 or 1 for a single logit."""
    return class_logits(logits).argmax(dim=-1)


def class_indices(targets: Targets, images: int, classes: int) -> Tensor:
    """Return target classes as a tensor of indices (B,).

    Args:
        targets: a class index per image, as anything that torch converts to a tensor.
        images: number B of images.
        classes: number of classes, 2 for a single logit.

    Raises:
        UserError: targets are not integers, not one per image, or out of range.
    """
    try:
        chosen = torch.as_tensor(targets).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"Expected targets ({images},), a class index for each image, but got {targets!r:.80}."
        ) from None
    if chosen.shape != (images,) or chosen.is_floating_point() or chosen.dtype == torch.bool:
        raise UserError(
            f"Expected targets ({images},), a class index for each image, but got "
            f"{tuple(chosen.shape)} of {chosen.dtype}."
        )
    if chosen.min() < 0 or chosen.max() >= classes:
        raise UserError(
            f"Expected targets from 0 to {classes - 1}, as the model has {classes} classes, but "
            f"got {int(chosen.min())} to {int(chosen.max())}."
        )
    return chosen.long()
