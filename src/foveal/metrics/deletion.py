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

STEPS = 20  # steps in which all pixels are hidden or revealed


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

    Pixels are greyed out in the order of their heat, the hottest first, a fraction of 1 / steps at
    a time; a smaller area is better (Petsiuk et al. 2018, "RISE", section 4.2). Grey is the mean
    colour of the image. Pixels of equal heat, such as those of a patch, are in a fixed random
    order. Most models were not trained on greyed images, which also affects the area. Therefore it
    can be used to compare explanations of one model, but not to compare models.

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
    pixel_ranks = ranks(explanation.heat)
    pixel_count = pixel_ranks[0].numel()
    reference = next(model.parameters(), torch.zeros(()))
    curve = torch.empty(steps + 1, len(images))
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            batch = images[rows].to(reference)
            batch_ranks = pixel_ranks[rows].to(batch.device)
            batch_classes = classes[rows].to(batch.device)
            grey = batch.mean(dim=(-2, -1), keepdim=True).expand_as(batch)
            for step in range(steps + 1):
                is_changed = (batch_ranks < round(pixel_count * step / steps))[:, None]
                after, before = (batch, grey) if reveal else (grey, batch)
                scores = probabilities(model(torch.where(is_changed, after, before)).float())
                curve[step, rows] = scores.gather(1, batch_classes[:, None])[:, 0].cpu()
    return torch.trapezoid(curve, dim=0) / steps


def insertion(
    model: nn.Module,
    explanation: Explanation,
    steps: int = STEPS,
    batch_size: int = 500,
    targets: Tensor | None = None,
) -> Tensor:
    """Return for each image (B,) the area under the class probability while pixels are revealed.

    The image is grey at first and the hottest pixels are revealed first; a larger area is better.
    The arguments and the other details are those of `deletion`.
    """
    return deletion(model, explanation, steps, batch_size, targets, reveal=True)


def _metric(
    name: str, area: Callable[..., Tensor], change: str, direction: str
) -> ExplanationMetric:
    """Return a metric that is the area under the class probability while pixels change.

    Args:
        name: name of the metric and of its column.
        area: `deletion` or `insertion`.
        change: participle that describes the change, for the meaning of the column.
        direction: `higher` or `lower`, whichever is better.
    """
    meaning = f"mean probability of the explained class while pixels are {change}, the hottest "
    return ExplanationMetric(
        name,
        lambda batch: {name: area(batch.model, batch.explanation, targets=batch.targets)},
        (Column(name, name, "{:.2f}", meaning + "first (Petsiuk et al. 2018)", direction),),
    )


DELETION = _metric("deletion", deletion, "greyed out", "lower")
INSERTION = _metric("insertion", insertion, "revealed", "higher")
