"""Deletion and insertion: class probability as the hottest pixels are hidden or revealed."""

import torch
from torch import Tensor, nn

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.metric import ExplanationMetric
from foveal.metrics.observing import evaluating
from foveal.observation.logits import probabilities
from foveal.observation.tensors import ranks

STEPS = 20


def deletion(
    model: nn.Module,
    explanation: Explanation,
    steps: int = STEPS,
    batch_size: int = 500,
    targets: Tensor | None = None,
) -> Tensor:
    """Return for each image (B,) the area under the class probability while pixels are deleted.

    The hottest pixels are greyed out first, a fraction of 1 / steps at a time; lower is better
    (Petsiuk et al. 2018, "RISE", section 4.2). Grey is the mean colour of the image. Pixels of
    equal heat, such as those of a patch, are in a fixed random order. Greyed images are outside
    the distribution of most models, which affects the area too: use it to compare explanations of
    one model, not models.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits; its mode and device are left unchanged.
        explanation: explanation of the images, with maps or patches.
        steps: number of steps in which all pixels are deleted.
        batch_size: images per forward pass.
        targets: (B,) indices of the classes; the predictions for the full images if not given.

    Raises:
        ValueError: `steps` is below 1, or the explanation has no heat.
    """
    return _area(model, explanation, targets, steps, batch_size, delete=True)


def insertion(
    model: nn.Module,
    explanation: Explanation,
    steps: int = STEPS,
    batch_size: int = 500,
    targets: Tensor | None = None,
) -> Tensor:
    """Return for each image (B,) the area under the class probability while pixels are revealed.

    As `deletion`, but starting from a grey image, the hottest pixels first; higher is better.
    """
    return _area(model, explanation, targets, steps, batch_size, delete=False)


def _area(
    model: nn.Module,
    explanation: Explanation,
    targets: Tensor | None,
    steps: int,
    batch_size: int,
    *,
    delete: bool,
) -> Tensor:
    if steps < 1:
        raise ValueError(f"Expected at least 1 step, but got {steps}.")
    images = explanation.images
    classes = explanation.predictions if targets is None else targets
    order = ranks(explanation.heat)
    pixels = order[0].numel()
    parameter = next(model.parameters(), torch.zeros(()))
    curve = torch.empty(steps + 1, len(images))
    with evaluating(model):
        for first in range(0, len(images), batch_size):
            part = slice(first, first + batch_size)
            whole = images[part].to(parameter)
            rank, labels = (order[part].to(whole.device), classes[part].to(whole.device))
            grey = whole.mean(dim=(-2, -1), keepdim=True).expand_as(whole)
            for step in range(steps + 1):
                changed = (rank < round(pixels * step / steps))[:, None]
                after, before = (grey, whole) if delete else (whole, grey)
                found = probabilities(model(torch.where(changed, after, before)).float())
                curve[step, part] = found.gather(1, labels[:, None])[:, 0].cpu()
    return torch.trapezoid(curve, dim=0) / steps


DELETION = ExplanationMetric(
    "deletion",
    lambda batch: {"deletion": deletion(batch.model, batch.explanation, targets=batch.targets)},
    (
        Column(
            "deletion",
            "deletion",
            "{:.2f}",
            "mean probability of the explained class while pixels are greyed out, the hottest "
            "first (Petsiuk et al. 2018)",
            "lower",
        ),
    ),
)
INSERTION = ExplanationMetric(
    "insertion",
    lambda batch: {"insertion": insertion(batch.model, batch.explanation, targets=batch.targets)},
    (
        Column(
            "insertion",
            "insertion",
            "{:.2f}",
            "mean probability of the explained class while pixels are revealed, the hottest first "
            "(Petsiuk et al. 2018)",
            "higher",
        ),
    ),
)
