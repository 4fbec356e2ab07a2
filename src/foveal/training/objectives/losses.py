"""Losses of classification and of ranking."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.training.settings import Training


def class_weights(labels: Tensor, class_count: int, balance: float) -> Tensor:
    """Return the weights (classes,) of the classes in the loss; rare classes get more weight.

    Args:
        labels: (N,) class indices of the training images.
        class_count: number of classes.
        balance: exponent b; a class of n images has a weight proportional to n ** -b.

    Returns:
        Weights that are scaled so that their mean over the images is 1.
    """
    counts = torch.bincount(labels, minlength=class_count).clamp_min(1).float()
    weights = counts**-balance
    return weights / weights[labels].mean()


def classification_loss(
    logits: Tensor, labels: Tensor, training: Training, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of logits, with the recipe's label smoothing and focal exponent.

    Args:
        logits: (B, classes).
        labels: (B,) class indices. For mixed images, the fraction of each class (B, classes) in
            each image; class weights and the focal exponent are then ignored.
        training: settings of the loss.
        weights: (classes,), weights of the classes from `class_weights`; None for equal weights.
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
    """Return the weights (B,) of images in the focal loss, or 1 if the exponent is 0.

    An image has less weight, the higher the predicted probability of its class.
    """
    if not exponent:
        return 1.0
    probability = logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
    # For exponents below 1, the gradient is unbounded at 0, where the probability is 1.
    return (1 - probability).clamp_min(1e-6) ** exponent


def ranking_loss(scores: Tensor, weights: Tensor) -> Tensor:
    """Return a loss that is small if patches of more weight have higher scores.

    For each pair of patches, it is the logistic loss of the difference of their scores (RankNet,
    Burges et al. 2005), multiplied by the difference of their weights. It is summed over the pairs
    of an image and averaged over images. Pairs of nearly equal weight contribute almost nothing, so
    a detector keeps its ranking as long as the head's weights are nearly equal.

    Args:
        scores: (B, K), the detector's score of each patch.
        weights: (B, T, K), the head's weight of each patch in each of T tasks. They are averaged
            over the tasks and get no gradient.
    """
    mean = weights.detach().float().mean(dim=1)
    # (B, K, K): by how much the first patch of a pair is ahead in weight, and behind in score.
    weight_lead = (mean[:, :, None] - mean[:, None, :]).clamp_min(0)
    score_lag = scores.float()[:, None, :] - scores.float()[:, :, None]
    return (weight_lead * F.softplus(score_lag)).sum(dim=(1, 2)).mean()
