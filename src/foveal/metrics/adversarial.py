"""Adversarial accuracy: accuracy under perturbations optimised against the model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.columns import Column
from foveal.metrics.metric import SAMPLE, About, Metric
from foveal.metrics.observing import as_floats, evaluating
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

MAX_PIXELS = 2**20  # maximum per pass, because gradients keep all features in memory


def adversarial_accuracy(
    model: ImageModel,
    test: ImageSet,
    epsilon: float = 8 / 255,
    steps: int = 10,
    seed: int = 0,
    *,
    batch_size: int = 500,
) -> float:
    """Return the accuracy, from 0 to 1, on images perturbed by up to `epsilon` per pixel.

    With one step, the attack is the fast gradient sign method (Goodfellow et al. 2015). With more,
    it is projected gradient descent from a random start (Madry et al. 2018), with steps of
    2.5 epsilon / steps. In focus models, gradients are propagated through the keypoints by
    straight-through estimation. A stronger attack may change more predictions, so the result is
    an upper bound of the accuracy under the strongest attack.

    Args:
        model: a classifier of any family; its mode, device and gradients are left unchanged.
        test: labelled images.
        epsilon: maximum change in a pixel value, in [0, 1].
        steps: number of steps of the attack.
        seed: seed of the random start; the caller's random generators are left unchanged.
        batch_size: images per pass; fewer for large images.
    """
    generator = torch.Generator().manual_seed(seed)
    correct_count = 0
    for batch in test.batches(batch_size, MAX_PIXELS):
        clean, labels = as_floats(model, batch.images), batch.labels
        noise = torch.rand(clean.shape, generator=generator) * 2 - 1 if steps > 1 else None
        with evaluating(model, gradients=True):
            perturbed = _attack(model, clean, labels.to(clean.device), epsilon, steps, noise)
        with evaluating(model):
            correct_count += int((model(perturbed).argmax(dim=1).cpu() == labels).sum())
    return correct_count / len(test)


def _attack(
    model: ImageModel,
    clean: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    noise: Tensor | None,
) -> Tensor:
    """Return images perturbed within `epsilon` so that the loss of their labels increases.

    If there is `noise`, in [-1, 1], the attack starts from the image plus `epsilon` times `noise`.
    """
    perturbed = clean.clone()
    if noise is not None:
        perturbed = (clean + epsilon * noise.to(clean)).clamp(0, 1)
    step_size = epsilon if steps == 1 else 2.5 * epsilon / steps
    for _ in range(steps):
        perturbed.requires_grad_()
        loss = F.cross_entropy(model(perturbed), labels)
        (gradient,) = torch.autograd.grad(loss, perturbed)
        perturbed = perturbed.detach() + step_size * gradient.sign()
        perturbed = torch.maximum(torch.minimum(perturbed, clean + epsilon), clean - epsilon)
        perturbed = perturbed.clamp(0, 1)
    return perturbed.detach()


def _measure(subject: Subject) -> dict[str, float]:
    return {
        f"{name}_accuracy": adversarial_accuracy(
            subject.model, subject.test, steps=steps, seed=subject.seed
        )
        for name, steps in (("fgsm", 1), ("pgd", 10))
    }


ADVERSARIAL = Metric(
    "adversarial",
    _measure,
    (
        Column(
            "fgsm_accuracy",
            "FGSM",
            "{:.1%}",
            f"accuracy on {SAMPLE} images after one gradient step of 8/255 against the model",
            "higher",
        ),
        Column(
            "pgd_accuracy",
            "PGD",
            "{:.1%}",
            f"accuracy on {SAMPLE} images after ten smaller steps within 8/255; an upper bound, as "
            "a stronger attack may change more predictions",
            "higher",
        ),
    ),
    needs=frozenset({Ability.CLASSES}),
    about=About.PREDICTION,
    sample=SAMPLE,
)
