"""Metrics of explanations averaged over a dataset, as torchmetrics classes."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from foveal.explanation import Explanation
from foveal.metrics.deletion import deletion, insertion
from foveal.metrics.energy_inside import energy_inside
from foveal.metrics.evidence_iou import evidence_iou
from foveal.metrics.pointing_game import pointing_game


class MeanOverImages(Metric, ABC):
    """Mean of one value per image, ignoring NaN.

    A subclass implements `values`, which receives the arguments of `update`, and has no subclasses
    itself. Values are accumulated over batches and processes as in any torchmetrics metric. The
    mean is NaN if no value is defined.
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
        """Return a value (B,) for each image of a batch; NaN where it is undefined."""

    def update(self, *arguments: Any) -> None:
        """Add the images of one batch; the arguments are those of `values`."""
        values = self.values(*arguments)
        defined = values[~values.isnan()].to(self.total)
        self.total = self.total + defined.sum()
        self.count = self.count + len(defined)

    def compute(self) -> Tensor:
        """Return the mean over all images that were added."""
        return self.total / self.count


class Deletion(MeanOverImages):
    """Mean area under the prediction's probability while pixels are deleted; see `deletion`."""

    higher_is_better = False

    def values(self, model: nn.Module, explanation: Explanation) -> Tensor:
        """Return an area (B,) for each image."""
        return deletion(model, explanation)


class Insertion(MeanOverImages):
    """Mean area under the prediction's probability while pixels are revealed; see `insertion`."""

    higher_is_better = True

    def values(self, model: nn.Module, explanation: Explanation) -> Tensor:
        """Return an area (B,) for each image."""
        return insertion(model, explanation)


class EnergyInside(MeanOverImages):
    """Mean fraction of positive heat inside the annotated region; see `energy_inside`."""

    higher_is_better = True

    def values(self, explanation: Explanation, truth: Tensor) -> Tensor:
        """Return a fraction (B,) for each image."""
        return energy_inside(explanation, truth)


class EvidenceIoU(MeanOverImages):
    """Mean intersection over union of evidence and annotated region; see `evidence_iou`."""

    higher_is_better = True

    def values(self, explanation: Explanation, truth: Tensor) -> Tensor:
        """Return a value (B,) for each image."""
        return evidence_iou(explanation, truth)


class PointingGame(MeanOverImages):
    """Fraction of images with maximum heat inside the annotated region; see `pointing_game`."""

    higher_is_better = True

    def values(self, explanation: Explanation, truth: Tensor) -> Tensor:
        """Return a hit (B,) for each image."""
        return pointing_game(explanation, truth)
