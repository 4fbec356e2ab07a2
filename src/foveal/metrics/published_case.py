"""Inputs of the published metrics, which Quantus computes, in the form that it requires.

Heat is the importance of each pixel of an image according to an explanation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from foveal.observation.logits import probabilities

# Function from a model, images (B, C, H, W) in [0, 1] on the CPU, and the indices (B,) of the
# classes to explain, to heat (B, H, W).
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
Result = TypeVar("Result")


class Score(NamedTuple):
    """Mean of a metric, and the number of images that it was measured on."""

    mean: float
    image_count: int


NO_SCORE = Score(math.nan, 0)  # the metric cannot be measured on any image


class Probabilities(nn.Module):
    """A classifier's probabilities (B, classes) for any number of images (B, C, H, W).

    Quantus removes a softmax if it is the last module of a model. The identity as the last module
    prevents this.
    """

    def __init__(self, model: nn.Module, batch_size: int):
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 probabilities, computed for `batch_size` images at a time."""
        reference = next(self.model.parameters(), images)
        logits = [
            self.model(batch.to(reference, copy=True)).float()
            for batch in images.split(self.batch_size)
        ]
        return self.last(probabilities(torch.cat(logits)))


@dataclass(frozen=True)
class Case:
    """Input of a metric; all tensors are on the CPU with the same first dimension B.

    Attributes:
        model: the explained model, which returns probabilities, in evaluation mode.
        images: (B, C, H, W), floats in [0, 1].
        labels: (B,) classes whose probability or accuracy is measured.
        heat: (B, H, W), the raw values of the explanation.
        masks: (B, H, W) booleans, True in the annotated region; or None.
        explain: function that computes the heat for any model; or None, which skips the metrics
            that need it.
        sample: number of random images that slow metrics are measured on.
        seed: seed of all random draws.
    """

    model: Probabilities
    images: Tensor
    labels: Tensor
    heat: Tensor
    masks: Tensor | None
    explain: Explain | None
    sample: int
    seed: int

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: Tensor) -> "Case":
        """Return the case of some of the images, selected by indices or by booleans (B,)."""
        masks = None if self.masks is None else self.masks[rows]
        images, labels, heat = self.images[rows], self.labels[rows], self.heat[rows]
        return replace(self, images=images, labels=labels, heat=heat, masks=masks)

    def random_sample(self) -> "Case":
        """Return the case of `sample` random images, or of all if there are fewer."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.subset(torch.randperm(len(self), generator=generator)[: self.sample])

    def ranks(self) -> Tensor:
        """Return the rank (B, H, W) of each pixel by heat, from 1 for the coldest to H W.

        Pixels of equal heat are ranked at random.
        """
        heat = self.heat.flatten(1)
        generator = torch.Generator().manual_seed(self.seed)
        permutation = torch.rand(heat.shape, generator=generator).argsort(dim=1)
        order = permutation.gather(1, heat.gather(1, permutation).argsort(dim=1, stable=True))
        ascending = torch.arange(1.0, heat.shape[1] + 1).expand_as(heat)
        return torch.empty_like(heat).scatter_(1, order, ascending).view_as(self.heat)

    def run(self, metric: Callable[..., Result], attributions: Tensor, **options: object) -> Result:
        """Return the result of a Quantus metric for attributions (B, 1 or C, H, W)."""
        arrays = [tensor.numpy() for tensor in (self.images, self.labels, attributions)]
        return metric(self.model, *arrays, channel_first=True, softmax=False, **options)
