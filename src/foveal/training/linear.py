"""A linear layer on a backbone's global vector: the baseline of what is trained on it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.training.features import Features
from foveal.training.objectives.losses import class_weights

DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3)  # of the weights; validation chooses
STEPS = 150  # of L-BFGS, at most


@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression on standardised vectors.

    Attributes:
        mean: (F,), subtracted from vectors.
        std: (F,), divided by.
        weight: (F, classes).
        bias: (classes,).
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight (classes, F) and bias (classes,) for vectors that are not standardised."""
        weight = self.weight / self.std[:, None]
        return weight.T.contiguous(), self.bias - self.mean @ weight

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return logits (N, classes) for vectors (N, F)."""
        return ((vectors.float() - self.mean) / self.std) @ self.weight + self.bias


@dataclass(frozen=True)
class Labelled:
    """Vectors of images, each seen in one or more views.

    Attributes:
        vectors: (N, views, F); the first view is the image as it is.
        labels: (N,) class indices.
    """

    vectors: Tensor
    labels: Tensor


def labelled(images: ImageSet[Features]) -> Labelled:
    """Return the global vectors of images whose features were computed, with their labels."""
    return Labelled(images.images.whole, images.labels)


def fit_linear(train: Labelled, val: Labelled, classes: int, balance: float = 0.0) -> Linear:
    """Return the linear layer, with the weight decay of `DECAYS` that validates best.

    Args:
        train: all of whose views are learned.
        val: whose first view validates.
        classes: how many there are.
        balance: how far rare classes weigh more, as a recipe's `training.balance`; above 0 it is
            the mean accuracy of the classes that validates.
    """
    vectors = train.vectors.float()
    mean = vectors.mean(dim=(0, 1))
    std = vectors.std(dim=(0, 1)).clamp_min(1e-3)
    inputs = ((vectors - mean) / std).flatten(0, 1)
    labels = train.labels.repeat_interleave(vectors.shape[1])
    weights = class_weights(train.labels, classes, balance) if balance else None
    weight, bias = torch.zeros(inputs.shape[1], classes), torch.zeros(classes)
    best, best_score = None, -1.0
    for decay in sorted(DECAYS, reverse=True):  # each starts where the stronger one ended
        weight, bias = _fit(inputs, labels, weight, bias, decay, weights)
        found = Linear(mean, std, weight, bias)
        score = _score(found(val.vectors[:, 0]), val.labels, balance > 0)
        if score > best_score:
            best, best_score = found, score
    assert best is not None
    return best


def _fit(
    inputs: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    decay: float,
    weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    weight, bias = (t.clone().requires_grad_() for t in (weight, bias))
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weight + bias, labels, weight=weights)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _score(logits: Tensor, labels: Tensor, balanced: bool) -> float:
    right = (logits.argmax(dim=1) == labels).float()
    if not balanced:
        return float(right.mean())
    return float(torch.stack([right[labels == one].mean() for one in labels.unique()]).mean())
