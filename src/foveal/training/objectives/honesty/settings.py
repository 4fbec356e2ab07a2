"""Settings of the honesty terms, which keep keypoints from revealing the class."""

from dataclasses import dataclass
from typing import Annotated

from foveal.foundation.arguments import Range
from foveal.foundation.ranges import Fraction
from foveal.training.ranges import Amount


@dataclass(frozen=True)
class Honesty:
    """Weights of the terms that keep a focus model's keypoints from revealing the class.

    Attributes:
        adversary: weight of a probe, a small network that is trained alongside the model to predict
            the class from the keypoints. The detector gets its gradient with the opposite sign, and
            so learns to make it fail (Ganin & Lempitsky 2015, arXiv:1409.7495).
        probes: number of such probes. A detector that fools one need not fool another.
        dependence: weight of the kernel dependence between the keypoints and the classes of a
            batch (centred kernel alignment, Cortes et al. 2012).
        swap: weight of the classification loss of other images' patches at this image's keypoints.
        still: whether `adversary` and `dependence` also apply to the keypoints in the images before
            augmentation. These reveal more, because augmentation moves the others at random.
        ramp: initial fraction of training in which `adversary` and `dependence` grow linearly to
            their weights.
        settle: final fraction of training in which the detector is frozen, so that the classifier
            can adapt to it, and only the `swap` term remains. This phase has its own cycle of the
            learning rate.
    """

    adversary: Amount = 0.0
    dependence: Amount = 0.0
    swap: Amount = 0.0
    still: bool = False
    ramp: Fraction = 0.0
    probes: Annotated[int, Range(1, 64)] = 1
    settle: Fraction = 0.0
