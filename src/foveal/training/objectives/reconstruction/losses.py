"""Losses of a reconstruction, and penalties on keypoints and latent vectors."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.images.geometry import Size, to_px


class RandomFeatures(nn.Module):
    """Perceptual distance between images: the distance of their features in a random network.

    Random weights suffice for a perceptual loss (Liu et al. 2021, "Generic perceptual loss for
    modeling structured output dependencies") and need no labels.

    Args:
        in_channels: channels of the images.
        width: channels of the first of three layers; each later one has twice as many.
        seed: seed of the weights; the global random generator is left unchanged.
    """

    def __init__(self, in_channels: int, width: int = 16, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            layers = [
                nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1)
                for channels_in, channels_out in (
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
        """Return the mean squared distance between the features of images and of `others`.

        Image i is compared with the i-th of `others`; both are (B, C, H, W).
        """
        total = images.new_zeros(())
        for layer in self.layers:
            images, others = F.relu(layer(images)), F.relu(layer(others))
            total = total + F.mse_loss(images, others)
        return total / len(self.layers)


def overlap(keypoints: Tensor, patch_size: int, size: Size) -> Tensor:
    """Return the fraction of a patch that another patch covers.

    It is averaged over all pairs of patches in an image, and over images. It is 0 if no two patches
    overlap or there is only one patch, and 1 if all patches coincide.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side in pixels.
        size: height and width of the images in pixels.
    """
    count = keypoints.shape[1]
    if count < 2:
        return keypoints.new_zeros(())
    centres = to_px(keypoints, size)
    distances = (centres[:, :, None] - centres[:, None]).abs()  # (B, K, K, 2), along x and y
    covered = (1 - distances / patch_size).clamp(min=0).prod(dim=-1)
    first, second = torch.triu_indices(count, count, offset=1, device=keypoints.device)
    return covered[:, first, second].mean()


def movement(keypoints: Tensor) -> Tensor:
    """Return the variance of keypoints over a batch, averaged over the K keypoints.

    It is the sum of the variances of x and y. A keypoint that is at the same location in all images
    encodes nothing by its location.

    Args:
        keypoints: (B, K, 2) in grid units.
    """
    return keypoints.var(dim=0, correction=0).sum(dim=-1).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normal distributions (B, L) from standard ones.

    It is in nats, summed over the L dimensions and averaged over images (Kingma & Welling 2014,
    appendix B).
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
