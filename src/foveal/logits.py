"""Logits -> probabilities and predictions, of many classes or of two by a single logit.

A single logit (B, 1) is the log-odds of class 1 against class 0, as `BCEWithLogitsLoss` trains
it: its probabilities are a sigmoid's. A softmax over it would give 1 for every image.
"""

import torch
from torch import Tensor


def class_logits(logits: Tensor) -> Tensor:
    """Return a logit per class (B, classes); of a single logit z, -z for class 0 and z for 1."""
    return torch.cat([-logits, logits], dim=-1) if logits.shape[-1] == 1 else logits


def probabilities(logits: Tensor) -> Tensor:
    """Return probabilities (B, classes), (B, 2) of a single logit."""
    if logits.shape[-1] == 1:
        return class_logits(logits).sigmoid()
    return logits.softmax(dim=-1)


def predictions(logits: Tensor) -> Tensor:
    """Return the most probable class (B,), 0 or 1 of a single logit."""
    return class_logits(logits).argmax(dim=-1)
