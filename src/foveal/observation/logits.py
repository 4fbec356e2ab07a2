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
    """Return one logit per class (B, classes); a single logit z becomes -z for class 0, z for 1."""
    return torch.cat([-logits, logits], dim=-1) if logits.shape[-1] == 1 else logits


def probabilities(logits: Tensor) -> Tensor:
    """Return probabilities (B, classes); (B, 2) for a single logit."""
    if logits.shape[-1] == 1:
        return class_logits(logits).sigmoid()
    return logits.softmax(dim=-1)


def predictions(logits: Tensor) -> Tensor:
    """Return the most probable class (B,); 0 or 1 for a single logit."""
    return class_logits(logits).argmax(dim=-1)


def class_indices(targets: Targets, image_count: int, class_count: int) -> Tensor:
    """Return target classes as a tensor of indices (B,).

    Args:
        targets: a class index per image, as anything that torch converts to a tensor.
        image_count: number B of images.
        class_count: number of classes, 2 for a single logit.

    Raises:
        UserError: the targets are not integers, not one per image, or out of range.
    """
    try:
        indices = torch.as_tensor(targets).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"Expected targets ({image_count},), a class index for each image, but got "
            f"{targets!r:.80}."
        ) from None
    is_integer = not indices.is_floating_point() and indices.dtype != torch.bool
    if indices.shape != (image_count,) or not is_integer:
        raise UserError(
            f"Expected targets ({image_count},), a class index for each image, but got "
            f"{tuple(indices.shape)} of {indices.dtype}."
        )
    if indices.min() < 0 or indices.max() >= class_count:
        raise UserError(
            f"Expected targets from 0 to {class_count - 1}, as the model has {class_count} "
            f"classes, but got {int(indices.min())} to {int(indices.max())}."
        )
    return indices.long()
