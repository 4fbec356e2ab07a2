"""Losses of a reconstruction, and penalties on keypoints and latent vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.images.geometry import Size, to_px


class RandomFeatures(nn.Module):
    """Perceptual distance of images by a convolutional network with random weights.

    Random weights suffice for a perceptual loss (Liu et al. 2021, "Generic perceptual loss for
    modeling structured output dependencies") and need no labels.

    Args:
        in_channels: channels of the images.
        width: channels of the first of three layers; they double from layer to layer.
        seed: seed of the weights.
    """

    def __init__(self, in_channels: int, width: int = 16, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layers = [
                nn.Conv2d(before, after, 3, stride=2, padding=1)
                for before, after in (
                    (in_channels, width),
                    (width, 2 * width),
                    (2 * width, 4 * width),
                )
            ]
            for layer in layers:
                nn.init.orthogonal_(layer.weight, gain=2**0.5)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.layers = nn.ModuleList(layers).requires_grad_(False)

    def distance(self, images: Tensor, others: Tensor) -> Tensor:
        """Return the mean squared distance of features of images (B, C, H, W), over all layers."""
        total = images.new_zeros(())
        for layer in self.layers:
            images, others = F.relu(layer(images)), F.relu(layer(others))
            total = total + F.mse_loss(images, others)
        return total / len(self.layers)


def overlap(keypoints: Tensor, patch_size: int, size: Size) -> Tensor:
    """Return the fraction of a patch that another covers, averaged over all pairs of an image.

    It is 0 if no two patches overlap, and 1 if all coincide.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side in pixels.
        size: height and width of the images in pixels.
    """
    count = keypoints.shape[1]
    if count < 2:
        return keypoints.new_zeros(())
    centre = to_px(keypoints, size)
    distance = (centre[:, :, None] - centre[:, None]).abs()  # (B, K, K, 2)
    shared = (1 - distance / patch_size).clamp(min=0).prod(dim=-1)
    first, second = torch.triu_indices(count, count, offset=1, device=keypoints.device)
    return shared[:, first, second].mean()


def movement(keypoints: Tensor) -> Tensor:
    """Return the variance of keypoints over a batch, averaged over the K keypoints.

    A keypoint that does not move encodes nothing by its location.

    Args:
        keypoints: (B, K, 2) in grid units.
    """
    return keypoints.var(dim=0, correction=0).sum(dim=-1).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normal distributions (B, L) from standard ones.

    The sum over the L dimensions, averaged over images, in nats (Kingma & Welling 2014,
    appendix B).
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
