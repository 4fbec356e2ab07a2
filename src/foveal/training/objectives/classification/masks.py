"""Masks: a loss term that draws attention maps to marked regions."""

from torch import Tensor


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Return one minus the Dice coefficient of attention maps and masks (after Yan et al. 2019).

    The loss is averaged over maps, and over images whose mask is not empty. Maps are first scaled
    to a maximum of 1, because the weights of a softmax are tiny.

    Args:
        maps: (B, M, H, W), non-negative weights.
        masks: (B, 1, H, W), in [0, 1].
    """
    maps, masks = maps.float(), masks.float()
    maximum = maps.detach().amax(dim=(-2, -1), keepdim=True)
    scaled = maps / maximum.clamp_min(1e-12)
    intersection = (scaled * masks).sum(dim=(-2, -1))  # (B, M)
    total = scaled.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    losses = (1 - 2 * intersection / total.clamp_min(1e-12)).mean(dim=1)
    marked = masks.flatten(1).amax(dim=1) > 0
    return (losses * marked).sum() / marked.sum().clamp_min(1)
