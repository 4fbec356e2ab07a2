"""Settings of training a model that classifies from crops."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.ranges import Fraction
from foveal.training.ranges import Amount

SELECTIONS = ("distil", "greedy", "gumbel", "perturbed", "peaks")


@dataclass(frozen=True)
class Crops:
    """How the detector of a `crops` model is trained.

    With `training.cache` there is a first phase before the main training, in which head and
    detector are trained on stored features of all candidates, the crops that may be chosen.

    Attributes:
        select: method of the first phase. `distil`: the detector learns to predict the weights of
            a head that reads all candidates. `greedy`: it learns to predict the candidates that
            reduce the loss of that head most. `gumbel`: candidates are sampled by score, and the
            weights that the head gives them train the detector. `perturbed`: the detector gets the
            gradient of a top-k selection with noise. `peaks`: the detector does not learn; it
            chooses candidates where the squared features are largest.
        head_epochs: epochs of the head in the first phase.
        detector_epochs: epochs of the detector in the first phase, for `distil` and `greedy`.
        dropout: fraction of the features dropped in the first phase.
        distil: weight, in the main training, of the ranking loss, which trains the detector to give
            higher scores to the crops that have more weight in the head.
    """

    select: Annotated[str, OneOf(SELECTIONS)] = "distil"
    head_epochs: Annotated[int, Range(0, 10_000)] = 8
    detector_epochs: Annotated[int, Range(0, 10_000)] = 8
    dropout: Fraction = 0.2
    distil: Amount = 1.0
