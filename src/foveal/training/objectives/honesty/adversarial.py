"""Adversarial training: probes predict the class from keypoints, which the detector prevents."""

import torch.nn.functional as F
from torch import Tensor, nn


class Probes(nn.Module):
    """Probes that predict the class from locations; their gradient is reversed for the detector.

    A probe is a small network. It is trained to predict the class, and the detector is trained to
    make the probe fail (Ganin & Lempitsky 2015, "Unsupervised domain adaptation by
    backpropagation"). Each probe has the architecture of the probe in `position_leakage`. That
    metric always trains a new one, because a detector can learn to fool a probe that is trained
    alongside it.

    Args:
        values: number D of location values per image, such as two per keypoint.
        num_classes: number of classes.
        count: number of probes, with different initial weights.
    """

    def __init__(self, values: int, num_classes: int, count: int):
        super().__init__()
        self.probes = nn.ModuleList(
            nn.Sequential(
                # Normalised, because even small differences of location can reveal the class.
                nn.BatchNorm1d(values, affine=False),
                nn.Linear(values, 128),
                nn.ReLU(),
                nn.Linear(128, 128),
                nn.ReLU(),
                nn.Linear(128, num_classes),
            )
            for _ in range(count)
        )

    def losses(self, locations: Tensor, labels: Tensor, weight: float) -> list[Tensor]:
        """Return each probe's cross-entropy.

        The probes get its gradient unchanged. The locations, and thereby the detector, get the mean
        of the probes' gradients, multiplied by `-weight`.

        Args:
            locations: (B, D), in grid units.
            labels: (B,) class indices.
            weight: weight of the reversed gradient.
        """
        factor = weight / len(self.probes) if len(self.probes) else 0.0
        return [
            F.cross_entropy(probe(reverse_gradient(locations, factor)), labels)
            for probe in self.probes
        ]


def reverse_gradient(values: Tensor, weight: float) -> Tensor:
    """Return the values unchanged, with their gradient multiplied by `-weight`."""
    return values.detach() * (1 + weight) - values * weight
