"""Deletion and insertion: how fast the answer goes, and comes, with the hottest pixels."""

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
    """Return for each image (B,) the area under the probability of its answer, pixels deleted.

    The hottest pixels are greyed first, a share of 1 / steps at a time; low is better (Petsiuk et
    al. 2018, "RISE", section 4.2). Grey is the mean of the image's own pixels. Of pixels that
    count alike, as within a patch, the order is drawn once. The answer is that of the untouched
    image. Greyed images are foreign to most models, and the area depends on that too: compare
    explanations of one model by it, not models.

    Args:
        model: images (B, C, H, W) in [0, 1] -> logits; its mode and device stay as they are.
        explanation: of the images, with maps or patches.
        steps: in which all pixels go.
        batch_size: images in one forward pass.
        targets: (B,) indices of the classes whose probability is taken; the answers if not given.

    Raises:
        ValueError: there is no heat.
    """
    return _area(model, explanation, targets, steps, batch_size, delete=True)


def insertion(
    model: nn.Module,
    explanation: Explanation,
    steps: int = STEPS,
    batch_size: int = 500,
    targets: Tensor | None = None,
) -> Tensor:
    """Return for each image (B,) the area under the probability of its answer, pixels shown.

    As `deletion`, but from a grey image the hottest pixels are shown first; high is better.
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
        raise ValueError(f"Expected at least one step, but got {steps}.")
    images = explanation.images
    answers = explanation.predictions if targets is None else targets
    order = ranks(explanation.heat)
    pixels = order[0].numel()
    parameter = next(model.parameters(), torch.zeros(()))
    curve = torch.empty(steps + 1, len(images))
    with evaluating(model):
        for first in range(0, len(images), batch_size):
            part = slice(first, first + batch_size)
            whole = images[part].to(parameter)
            places, labels = (order[part].to(whole.device), answers[part].to(whole.device))
            grey = whole.mean(dim=(-2, -1), keepdim=True).expand_as(whole)
            for step in range(steps + 1):
                touched = (places < round(pixels * step / steps))[:, None]
                there, gone = (grey, whole) if delete else (whole, grey)
                chances = probabilities(model(torch.where(touched, there, gone)).float())
                curve[step, part] = chances.gather(1, labels[:, None])[:, 0].cpu()
    return torch.trapezoid(curve, dim=0) / steps


DELETION = ExplanationMetric(
    "deletion",
    lambda batch: {"deletion": deletion(batch.model, batch.explanation, targets=batch.targets)},
    (
        Column(
            "deletion",
            "deletion",
            "{:.2f}",
            "probability of the explained class, mean while the pixels of most heat are greyed out "
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
            "probability of the explained class, mean while the pixels of most heat are revealed "
            "first (Petsiuk et al. 2018)",
            "higher",
        ),
    ),
)
