"""Deletion and insertion: class probability as the hottest pixels are hidden or revealed."""

from collections.abc import Callable

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
    *,
    reveal: bool = False,
) -> Tensor:
    """Return for each image (B,) the area under the class probability while pixels are deleted.

    The hottest pixels are greyed out first, a fraction of 1 / steps at a time; lower is better
    (Petsiuk et al. 2018, "RISE", section 4.2). Grey is the mean colour of the image. Pixels of
    equal heat, such as those of a patch, are in a fixed random order. Greyed images are outside
    the distribution of most models, which affects the area too: use it to compare explanations of
    one model, not to compare models.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits; its mode and device are left unchanged.
        explanation: explanation of the images, with maps or patches.
        steps: number of steps in which all pixels are deleted.
        batch_size: images per forward pass.
        targets: (B,) indices of the classes; by default the predictions for the full images.
        reveal: start from a grey image and reveal pixels instead, the hottest first; higher is
            then better.

    Raises:
        ValueError: `steps` is below 1, or the explanation has no heat.
    """
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
            batch = images[part].to(parameter)
            rank, labels = (order[part].to(batch.device), classes[part].to(batch.device))
            grey = batch.mean(dim=(-2, -1), keepdim=True).expand_as(batch)
            for step in range(steps + 1):
                changed = (rank < round(pixels * step / steps))[:, None]
                after, before = (batch, grey) if reveal else (grey, batch)
                scores = probabilities(model(torch.where(changed, after, before)).float())
                curve[step, part] = scores.gather(1, labels[:, None])[:, 0].cpu()
    return torch.trapezoid(curve, dim=0) / steps


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
    return deletion(model, explanation, steps, batch_size, targets, reveal=True)


def _metric(
    name: str, area: Callable[..., Tensor], change: str, direction: str
) -> ExplanationMetric:
    """Return a metric that is the area under the class probability while pixels change."""
    meaning = f"mean probability of the explained class while pixels are {change}, the hottest "
    return ExplanationMetric(
        name,
        lambda batch: {name: area(batch.model, batch.explanation, targets=batch.targets)},
        (Column(name, name, "{:.2f}", meaning + "first (Petsiuk et al. 2018)", direction),),
    )


DELETION = _metric("deletion", deletion, "greyed out", "lower")
INSERTION = _metric("insertion", insertion, "revealed", "higher")
