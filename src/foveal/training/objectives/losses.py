"""Losses of classification and of ranking."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.training.settings import Training


def class_weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """Return a weight (classes,) per class, by which rare classes count more.

    Args:
        labels: (N,) class indices of the training images.
        classes: number of classes.
        balance: exponent b; a class of n images has the weight n ** -b.

    Returns:
        Weights whose mean over the images is 1.
    """
    counts = torch.bincount(labels, minlength=classes).clamp_min(1).float()
    weights = counts**-balance
    return weights / weights[labels].mean()


def classification_loss(
    logits: Tensor, labels: Tensor, training: Training, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of logits, with the recipe's label smoothing and focal exponent.

    Args:
        logits: (B, classes).
        labels: (B,) class indices, or the fraction of each class (B, classes) in mixed images, for
            which weights and the focal exponent are ignored.
        training: settings of the loss.
        weights: (classes,), as `class_weights` returns them; None for equal weights.
    """
    smoothing = training.label_smoothing
    if labels.ndim > 1:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if weights is not None:
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels] * _focal_weights(logits, labels, training.focal)).mean()
    if not training.focal:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (_focal_weights(logits, labels, training.focal) * losses).mean()


def _focal_weights(logits: Tensor, labels: Tensor, exponent: float) -> Tensor | float:
    """Return the weights (B,) of images in the focal loss."""
    if not exponent:
        return 1.0
    probability = logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
    # The gradient of a root is unbounded at 0, where the probability is 1.
    return (1 - probability).clamp_min(1e-6) ** exponent


def ranking_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Return a ranking loss of scores (B, K) against the tasks' weights (B, T, K).

    For each pair of patches, it is the logistic loss (RankNet, Burges et al. 2005) times the
    difference of their weights, which are averaged over tasks and get no gradient. It is summed
    over pairs and averaged over images. Pairs of nearly equal weight contribute almost nothing, so
    a detector keeps its ranking while the weights are still nearly equal.
    """
    mean = weights.detach().float().mean(dim=1)
    ahead = (mean[:, :, None] - mean[:, None, :]).clamp_min(0)  # (B, K, K)
    behind = scores.float()[:, None, :] - scores.float()[:, :, None]
    return (ahead * F.softplus(behind)).sum(dim=(1, 2)).mean()
