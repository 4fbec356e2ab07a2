"""What metrics that are averaged over a dataset share: a value for each image, and their mean."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class MeanOverImages(Metric, ABC):
    """The mean over images of a value each; images of which there is none (NaN) do not count.

    A subclass is final and implements `values`, whose arguments `update` takes. It accumulates
    over batches and processes as every torchmetrics metric does; without any value it is NaN.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, *arguments: Any) -> Tensor:
        """Return a value (B,) for each image."""

    def update(self, *arguments: Any) -> None:
        """Add the images of one batch."""
        values = self.values(*arguments)
        known = values[~values.isnan()].to(self.total)
        self.total = self.total + known.sum()
        self.count = self.count + len(known)

    def compute(self) -> Tensor:
        """Return the mean over all images so far."""
        return self.total / self.count
