"""Adversarial training: probes that predict the class from keypoints, against the detector."""

import torch.nn.functional as F
from torch import Tensor, nn


class Probes(nn.Module):
    """Probes that predict the class from locations; their gradient is reversed for the detector.

    Ganin & Lempitsky 2015, "Unsupervised domain adaptation by backpropagation". Each probe has
    the architecture of the probe in `position_leakage`. The metric always trains a new one, because
    a detector can learn to fool a probe that is trained alongside it.

    Args:
        values: location values per image, D.
        num_classes: number of classes.
        count: number of probes, with different initial weights.
    """

    def __init__(self, values: int, num_classes: int, count: int):
        super().__init__()
        self.probes = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(values, affine=False),  # small differences can reveal the class
                nn.Linear(values, 128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.ReLU(),
                nn.Linear(128, num_classes),
            )
            for _ in range(count)
        )

    def losses(self, locations: Tensor, labels: Tensor, weight: float) -> list[Tensor]:
        """Return each probe's cross-entropy; the detector gets their mean gradient, reversed.

        Args:
            locations: (B, D), in grid units.
            labels: (B,) class indices.
            weight: factor of the reversed gradient.
        """
        factor = weight / len(self.probes) if len(self.probes) else 0.0
        return [
            F.cross_entropy(probe(reverse_gradient(locations, factor)), labels)
            for probe in self.probes
        ]


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """Return the values unchanged, with their gradient multiplied by `-weight`."""
    return values.detach() * (1 + weight) - values * weight
