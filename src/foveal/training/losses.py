"""What training makes small."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.images.geometry import Size, to_px
from foveal.training.settings import Training


def class_weights(labels: Tensor, classes: int, balance: float) -> Tensor:
    """Return a weight (classes,) for each class, so that rare ones count.

    Args:
        labels: (N,) of the training images.
        classes: how many there are.
        balance: a class weighs as its count to the power of minus this.

    Returns:
        Weights whose mean over the images is 1.
    """
    counts = torch.bincount(labels, minlength=classes).clamp_min(1).float()
    weights = counts**-balance
    return weights / weights[labels].mean()


def classification_loss(
    logits: Tensor, labels: Tensor, training: Training, weights: Tensor | None = None
) -> Tensor:
    """Return the recipe's loss of logits (B, classes): cross-entropy, smoothed or focal.

    Args:
        logits: (B, classes).
        labels: (B,), or the share of each class (B, classes) in mixed images, which are neither
            weighed nor focal.
        training: says which loss.
        weights: (classes,) of each class, as `class_weights` returns them; None for all alike.
    """
    smoothing = training.label_smoothing
    if labels.ndim > 1:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    if weights is not None:
        losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (losses * weights[labels] * _focus(logits, labels, training.focal)).mean()
    if not training.focal:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    losses = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
    return (_focus(logits, labels, training.focal) * losses).mean()


def _focus(logits: Tensor, labels: Tensor, exponent: float) -> Tensor | float:
    """Return the focal loss' weight (B,) of each image."""
    if not exponent:
        return 1.0
    chances = logits.softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)
    # The gradient of a root has no bound at 0, where an image is answered with certainty.
    return (1 - chances).clamp_min(1e-6) ** exponent


def misranked(scores: Tensor, weights: Tensor) -> Tensor:
    """Return how far scores (B, K) are from the order of the tasks' weights (B, T, K).

    The logistic loss of each pair of an image's patches (RankNet, Burges et al. 2005), times the
    difference of their weights: the mean over tasks, which get no gradient. The sum over pairs,
    the mean over images. Scores may be far apart where weights are close, but not the other way
    round, so what a detector knows already is not unlearned while the weights are still vague.
    """
    mean = weights.detach().float().mean(dim=1)
    ahead = (mean[:, :, None] - mean[:, None, :]).clamp_min(0)  # (B, K, K)
    behind = scores.float()[:, None, :] - scores.float()[:, :, None]
    return (ahead * F.softplus(behind)).sum(dim=(1, 2)).mean()


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


class RandomFeatures(nn.Module):
    """How differently two images look to a convolutional net that nobody has trained.

    A net of random weights is enough for a perceptual loss (Liu et al. 2021, "Generic perceptual
    loss for modeling structured output dependencies"), and has never seen a label.

    Args:
        in_channels: channels of the images.
        width: channels of the first layer; each of the three has twice those of the one before.
        seed: of the weights.
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
    """Return the share of a patch that another one covers, mean over all pairs of an image.

    0 where no two patches touch, 1 where all lie on one place.

    Args:
        keypoints: (B, K, 2) in grid units.
        patch_size: side in pixels.
        size: height and width of the images in pixels.
    """
    count = keypoints.shape[1]
    if count < 2:
        return keypoints.new_zeros(())
    centre = to_px(keypoints, size)
    apart = (centre[:, :, None] - centre[:, None]).abs()  # (B, K, K, 2)
    shared = (1 - apart / patch_size).clamp(min=0).prod(dim=-1)
    first, second = torch.triu_indices(count, count, offset=1, device=keypoints.device)
    return shared[:, first, second].mean()


def movement(keypoints: Tensor) -> Tensor:
    """Return how far keypoints move from image to image: their variance over a batch, mean over K.

    A keypoint that stays where it is tells nothing by its place; each bit of movement must pay.

    Args:
        keypoints: (B, K, 2) in grid units.
    """
    return keypoints.var(dim=0, correction=0).sum(dim=-1).mean()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of normal distributions (B, L) from the standard one.

    The sum over the L numbers, the mean over images, in nats (Kingma & Welling 2014, appendix B).
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean() / 2
