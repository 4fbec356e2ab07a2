"""What training makes small."""

import torch.nn.functional as F
from torch import Tensor

from foveal.training.recipe import Training


def classification_loss(logits: Tensor, labels: Tensor, training: Training) -> Tensor:
    """Return the recipe's loss of logits (B, classes): cross-entropy, smoothed or focal."""
    smoothing = training.label_smoothing
    if not training.focal:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    chances = logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
    # The gradient of a root has no bound at 0, where an image is answered with certainty.
    return ((1 - chances).clamp_min(1e-6) ** training.focal * losses).mean()


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Return how little attention maps overlap with masks (after Yan et al. 2019).

    One minus the Sørensen–Dice coefficient of each map with its image's mask; the mean over maps
    and over images whose mask is not empty. Maps are scaled to a greatest weight of 1 first, so
    that those of a softmax, whose weights are tiny, can be drawn to a mask too.

    Args:
        maps: (B, M, H, W), weights of at least 0.
        masks: (B, 1, H, W) from 0 to 1.
    """
    maps, masks = maps.float(), masks.float()
    greatest = maps.detach().amax(dim=(-2, -1), keepdim=True)
    scaled = maps / greatest.clamp_min(1e-12)
    both = (scaled * masks).sum(dim=(-2, -1))  # (B, M)
    total = scaled.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    losses = (1 - 2 * both / total.clamp_min(1e-12)).mean(dim=1)
    marked = masks.flatten(1).amax(dim=1) > 0
    return (losses * marked).sum() / marked.sum().clamp_min(1)
