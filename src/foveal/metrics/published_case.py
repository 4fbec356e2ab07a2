"""Cases of the published metrics: what Quantus measures, in the form that it takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from foveal.observation.logits import probabilities

# (model, images (B, C, H, W) in [0, 1] on the CPU, targets (B,)) -> heat (B, H, W)
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
Answer = TypeVar("Answer")


class Measured(NamedTuple):
    """A metric's mean, and how many images it is over."""

    mean: float
    images: int


NOTHING = Measured(math.nan, 0)  # of a metric that can be measured on no image


class Probabilities(nn.Module):
    """A classifier's probabilities (B, classes) for any number of images (B, C, H, W).

    Quantus takes a softmax that is listed last for the answer's and removes it: here none is last.
    """

    def __init__(self, model: nn.Module, batch_size: int):
        super().__init__()
        self.model = model
        self.batch_size = batch_size
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 probabilities, `batch_size` images at a time."""
        like = next(self.model.parameters(), images)
        parts = [
            self.model(batch.to(like, copy=True)).float() for batch in images.split(self.batch_size)
        ]
        return self.last(probabilities(torch.cat(parts)))


@dataclass(frozen=True)
class Case:
    """What a metric is measured on; tensors are on the CPU and share their first dimension B.

    Attributes:
        model: images -> probabilities, in evaluation mode.
        images: (B, C, H, W), floats in [0, 1].
        labels: (B,) classes whose probability or accuracy is followed.
        heat: (B, H, W), raw.
        masks: (B, H, W) booleans, where the truth lies; or None.
        explain: makes the heat anew, of any model; or None.
        sample: images, drawn at random, that a slow metric is measured on.
        seed: of all that is drawn.
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

    def part(self, chosen: Tensor) -> "Case":
        """Return some of the images, by numbers or booleans (B,)."""
        masks = None if self.masks is None else self.masks[chosen]
        images, labels, heat = self.images[chosen], self.labels[chosen], self.heat[chosen]
        return replace(self, images=images, labels=labels, heat=heat, masks=masks)

    def drawn(self) -> "Case":
        """Return `sample` of the images, or all if there are no more."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.part(torch.randperm(len(self), generator=generator)[: self.sample])

    def order(self) -> Tensor:
        """Return (B, H, W) from 1 for the coldest pixel to H W for the hottest, no two alike."""
        heat = self.heat.flatten(1)
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.rand(heat.shape, generator=generator).argsort(dim=1)
        order = drawn.gather(1, heat.gather(1, drawn).argsort(dim=1, stable=True))
        places = torch.arange(1.0, heat.shape[1] + 1).expand_as(heat)
        return torch.empty_like(heat).scatter_(1, order, places).view_as(self.heat)

    def ask(self, metric: Callable[..., Answer], attributions: Tensor, **more: object) -> Answer:
        """Return what a Quantus metric says of attributions (B, 1 or C, H, W)."""
        x, y, a = self.images.numpy(), self.labels.numpy(), attributions.numpy()
        return metric(self.model, x, y, a, channel_first=True, softmax=False, **more)
