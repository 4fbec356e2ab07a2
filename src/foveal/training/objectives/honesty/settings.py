"""Settings of the honesty terms of a loss."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import Range
from foveal.foundation.ranges import Fraction
from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Honesty:
    """Weights of the terms that keep a focus model's keypoints from revealing the class.

    Attributes:
        adversary: weight of a probe that predicts the class from the keypoints; it is trained
            alongside, with its gradient reversed for the detector (Ganin & Lempitsky 2015,
            arXiv:1409.7495).
        probes: number of such probes. A detector that fools one need not fool another.
        dependence: weight of the kernel dependence between the keypoints and the classes of a
            batch (centred kernel alignment, Cortes et al. 2012).
        swap: weight of the classification loss of other images' patches at this image's keypoints.
        still: whether to apply the terms also to the keypoints before augmentation, which reveal
            more.
        ramp: initial fraction of training in which `adversary` and `dependence` grow linearly to
            their weights.
        settle: final fraction of training with the detector frozen, so that the classifier can
            adapt. This phase has its own cycle of the learning rate.
    """

    adversary: Amount = 0.0
    dependence: Amount = 0.0
    swap: Amount = 0.0
    still: bool = False
    ramp: Fraction = 0.0
    probes: Annotated[int, Range(1, 64)] = 1
    settle: Fraction = 0.0
