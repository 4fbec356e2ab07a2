"""Settings of training on crops."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.ranges import Fraction
from foveal.training.ranges import Amount

SELECTIONS = ("distil", "greedy", "gumbel", "perturbed", "peaks")


@dataclass(frozen=True)
class Crops:
    """Training of the detector of a `crops` model.

    Attributes:
        select: how the detector first learns, on the features of all candidates (with
            `training.cache`): `distil` (from the weights of a head that reads all candidates),
            `greedy` (from the candidates that reduce that head's loss most), `gumbel` (candidates
            sampled with noise, the head's weights as teacher), `perturbed` (by the gradient of a
            perturbed top-k) or `peaks` (not learned: maxima of the features' energy).
        head_epochs: epochs of the head in this phase.
        detector_epochs: epochs of the detector in this phase, for `distil` and `greedy`.
        dropout: fraction of the features dropped in this phase.
        distil: weight, in the main training, of the ranking loss by which the head's weights of
            the crops teach the detector's scores.
    """

    select: Annotated[str, OneOf(SELECTIONS)] = "distil"
    head_epochs: Annotated[int, Range(0, 10_000)] = 8
    detector_epochs: Annotated[int, Range(0, 10_000)] = 8
    dropout: Fraction = 0.2
    distil: Amount = 1.0
