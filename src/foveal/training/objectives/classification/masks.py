"""Mask loss: a term that makes attention maps overlap with annotated regions."""

from torch import Tensor


def mask_loss(maps: Tensor, masks: Tensor) -> Tensor:
    """Return one minus the Dice coefficient of attention maps and masks (after Yan et al. 2019).

    The loss is averaged over the M maps of an image, then over the images whose mask is not empty;
    it is 0 if all masks are empty. Each map is first scaled to a maximum of 1, because the weights
    of a softmax are much smaller than the values of a mask.

    Args:
        maps: (B, M, H, W), non-negative attention weights.
        masks: (B, 1, H, W), in [0, 1]; above 0 in the annotated regions.
    """
    maps, masks = maps.float(), masks.float()
    maximum = maps.detach().amax(dim=(-2, -1), keepdim=True)
    scaled = maps / maximum.clamp_min(1e-12)
    intersection = (scaled * masks).sum(dim=(-2, -1))  # (B, M)
    total = scaled.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    losses = (1 - 2 * intersection / total.clamp_min(1e-12)).mean(dim=1)
    has_mask = masks.flatten(1).amax(dim=1) > 0
    return (losses * has_mask).sum() / has_mask.sum().clamp_min(1)
