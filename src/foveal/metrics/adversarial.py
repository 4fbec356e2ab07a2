"""Adversarial accuracy: what is left of the accuracy under noise that is made against the model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.data import ImageSet
from foveal.metrics.looks import as_floats, evaluating
from foveal.models.classifier import ImageClassifier

PIXELS = 2**20  # in one pass: its gradient keeps all features


def adversarial_accuracy(
    model: ImageClassifier,
    test: ImageSet,
    epsilon: float = 8 / 255,
    steps: int = 10,
    seed: int = 0,
    *,
    batch_size: int = 500,
) -> float:
    """Return the accuracy, from 0 to 1, on images moved by up to `epsilon` against the label.

    With one step the fast gradient sign method (Goodfellow et al. 2015); with more, projected
    gradient descent from a random start (Madry et al. 2018), each step 2.5 epsilon / steps long.
    A focus model's gradient passes its keypoints by the straight-through estimate: an attack that
    knows better may find more, so the figure is an upper bound, as that of any gradient attack.

    Args:
        model: of any family; its mode, device and gradients stay as they are.
        test: labelled images.
        epsilon: greatest change of a pixel, in [0, 1].
        steps: of the attack.
        seed: of the start; the caller's random numbers stay what they were.
        batch_size: images in one pass; of large images fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for batch in test.batches(batch_size, PIXELS):
        clean, labels = as_floats(model, batch.images), batch.labels
        start = torch.rand(clean.shape, generator=generator) * 2 - 1 if steps > 1 else None
        with evaluating(model, gradients=True):
            moved = _attack(model, clean, labels.to(clean.device), epsilon, steps, start)
        with evaluating(model):
            right += int((model(moved).argmax(dim=1).cpu() == labels).sum())
    return right / len(test)


def _attack(
    model: ImageClassifier,
    clean: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    start: Tensor | None,
) -> Tensor:
    moved = clean.clone()
    if start is not None:
        moved = (clean + epsilon * start.to(clean)).clamp(0, 1)
    length = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        moved.requires_grad_()
        loss = F.cross_entropy(model(moved), labels)
        (slope,) = torch.autograd.grad(loss, moved)
        moved = moved.detach() + length * slope.sign()
        moved = torch.maximum(torch.minimum(moved, clean + epsilon), clean - epsilon).clamp(0, 1)
    return moved.detach()
