"""A linear layer on the global vectors of a backbone: a baseline, or the start of a classifier."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.training.features import Features
from foveal.training.objectives.losses import class_weights

DECAYS = (0.003, 0.01, 0.03, 0.1, 0.3)  # candidate weight decays; validation chooses one
STEPS = 150  # maximum number of L-BFGS steps per weight decay


@dataclass(frozen=True)
class Linear:
    """Multinomial logistic regression on vectors that are scaled to mean 0 and deviation 1.

    Attributes:
        mean: mean (F,) of the training vectors.
        std: standard deviation (F,) of the training vectors.
        weight: weights (F, classes).
        bias: biases (classes,).
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def fold_scaling(self) -> tuple[Tensor, Tensor]:
        """Return the weights (classes, F) and biases (classes,) that apply to unscaled vectors."""
        weight = self.weight / self.std[:, None]
        return weight.T.contiguous(), self.bias - self.mean @ weight

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return logits (N, classes) for vectors (N, F)."""
        return ((vectors.float() - self.mean) / self.std) @ self.weight + self.bias


@dataclass(frozen=True)
class LabelledVectors:
    """Vectors of images, with labels.

    Attributes:
        vectors: (N, views, F): of each image, a vector of the unchanged image and, with two views,
            one of the mirrored image.
        labels: (N,) class indices.
    """

    vectors: Tensor
    labels: Tensor


def labelled_vectors(images: ImageSet[Features]) -> LabelledVectors:
    """Return the global vectors and the labels of an image set of features."""
    return LabelledVectors(images.images.global_vectors, images.labels)


def fit_linear(
    train: LabelledVectors, val: LabelledVectors, classes: int, balance: float = 0.0
) -> Linear:
    """Fit a linear layer with each weight decay in `DECAYS`, and return the best one.

    The best layer is the one with the highest accuracy on the validation images.

    Args:
        train: training vectors; all views are used.
        val: validation vectors; only the first view is used.
        classes: number of classes.
        balance: exponent of the class weights in the loss, see `Training.balance`. If it is above
            0, the best layer has the highest mean per-class accuracy.
    """
    vectors = train.vectors.float()
    mean = vectors.mean(dim=(0, 1))
    std = vectors.std(dim=(0, 1)).clamp_min(1e-3)  # constant dimensions are not scaled up
    inputs = ((vectors - mean) / std).flatten(0, 1)
    labels = train.labels.repeat_interleave(vectors.shape[1])
    loss_weights = class_weights(train.labels, classes, balance) if balance else None
    weight = torch.zeros(inputs.shape[1], classes)
    bias = torch.zeros(classes)
    best_layer = None
    best_accuracy = -1.0
    for decay in sorted(DECAYS, reverse=True):  # each fit starts from the previous one
        weight, bias = _fit(inputs, labels, weight, bias, decay, loss_weights)
        layer = Linear(mean, std, weight, bias)
        accuracy = _accuracy(layer(val.vectors[:, 0]), val.labels, balanced=balance > 0)
        if accuracy > best_accuracy:
            best_layer, best_accuracy = layer, accuracy
    assert best_layer is not None
    return best_layer


def _fit(
    inputs: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor,
    decay: float,
    loss_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the weights and biases that minimise the loss, starting from the given ones.

    Args:
        inputs: scaled vectors (M, F).
        labels: (M,) class indices.
        weight: initial weights (F, classes), which are not changed.
        bias: initial biases (classes,), which are not changed.
        decay: weight decay; biases do not decay.
        loss_weights: (classes,) weights in the loss; None for equal ones.
    """
    weight, bias = (values.clone().requires_grad_() for values in (weight, bias))
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=STEPS, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(inputs @ weight + bias, labels, weight=loss_weights)
        loss = loss + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def _accuracy(logits: Tensor, labels: Tensor, balanced: bool) -> float:
    """Return the accuracy of logits (N, classes); if `balanced`, its mean over the classes."""
    correct = (logits.argmax(dim=1) == labels).float()
    if not balanced:
        return float(correct.mean())
    return float(torch.stack([correct[labels == label].mean() for label in labels.unique()]).mean())
