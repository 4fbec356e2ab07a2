"""A linear layer on a backbone's global vectors, as a baseline."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.training.features import Features
from foveal.training.objectives.losses import class_weights

DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3)  # candidate weight decays; validation chooses one
STEPS = 150  # maximum steps of L-BFGS


@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression on standardised vectors.

    Attributes:
        mean: mean (F,) of the vectors.
        std: standard deviation (F,) of the vectors.
        weight: weights (F, classes).
        bias: biases (classes,).
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def fold_scaling(self) -> tuple[Tensor, Tensor]:
        """Return weights (classes, F) and biases (classes,) for vectors before standardisation."""
        weight = self.weight / self.std[:, None]
        return weight.T.contiguous(), self.bias - self.mean @ weight

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return logits (N, classes) for vectors (N, F)."""
        return ((vectors.float() - self.mean) / self.std) @ self.weight + self.bias


@dataclass(frozen=True)
class LabelledVectors:
    """Vectors of images in one or more views, with labels.

    Attributes:
        vectors: (N, views, F); the first view is the unchanged image.
        labels: (N,) class indices.
    """

    vectors: Tensor
    labels: Tensor


def labelled_vectors(images: ImageSet[Features]) -> LabelledVectors:
    """Return the global vectors of an image set of features, with its labels."""
    return LabelledVectors(images.images.whole, images.labels)


def fit_linear(
    train: LabelledVectors, val: LabelledVectors, classes: int, balance: float = 0.0
) -> Linear:
    """Fit a linear layer, with the weight decay in `DECAYS` of the highest validation accuracy.

    Args:
        train: training vectors; all views are used.
        val: validation vectors; the first view is used.
        classes: number of classes.
        balance: exponent of the class weights, as a recipe's `training.balance`; above 0,
            validation accuracy is the mean over classes.
    """
    vectors = train.vectors.float()
    mean = vectors.mean(dim=(0, 1))
    std = vectors.std(dim=(0, 1)).clamp_min(1e-3)
    inputs = ((vectors - mean) / std).flatten(0, 1)
    labels = train.labels.repeat_interleave(vectors.shape[1])
    weights = class_weights(train.labels, classes, balance) if balance else None
    weight, bias = torch.zeros(inputs.shape[1], classes), torch.zeros(classes)
    best, best_score = None, -1.0
    for decay in sorted(DECAYS, reverse=True):  # each fit starts from the previous one
        weight, bias = _fit(inputs, labels, weight, bias, decay, weights)
        layer = Linear(mean, std, weight, bias)
        score = _score(layer(val.vectors[:, 0]), val.labels, balance > 0)
        if score > best_score:
            best, best_score = layer, score
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
    correct = (logits.argmax(dim=1) == labels).float()
    if not balanced:
        return float(correct.mean())
    return float(torch.stack([correct[labels == label].mean() for label in labels.unique()]).mean())
