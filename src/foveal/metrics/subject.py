"""Inputs of metrics: a model with its data, or a batch of explained images.

A probe is a small classifier that is trained to measure what information its inputs contain. A
judge is a classifier that is trained independently of a model, on images with regions greyed out,
to tell how much evidence a region contains.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from math import nan
from typing import Any, TypedDict

from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.metrics.observing import observe_all
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


class Given(Enum):
    """An optional input: one that the user may give in addition to a model and labelled images.

    A metric that needs an optional input is skipped if it is not given.
    """

    TRAIN = "training images for probes"
    JUDGE = "an independent judge of the evidence"
    MASKS = "annotations of the regions that matter"


# One requirement of a metric: an ability that the model must have, or an optional input that must
# be given.
Need = Ability | Given


class Shared(TypedDict):
    """Keyword arguments that the functions of several metrics have in common.

    Attributes:
        batch_size: images per forward pass.
        observed: logits and keypoints of the test images, computed once for all these metrics.
    """

    batch_size: int
    observed: Explanation


@dataclass(frozen=True)
class Subject:
    """A model and the images to measure it on.

    Metrics that need only logits and keypoints share one pass of the model over the images, whose
    result is `observed`.

    Attributes:
        model: the model.
        test: labelled images that the model was not trained on.
        train: labelled images to train probes on, or None.
        judge: a classifier of the same classes, trained on greyed images, or None.
        batch_size: images per forward pass.
        seed: seed of all random draws.
    """

    model: ImageModel
    test: ImageSet[Any]
    train: ImageSet | None = None
    judge: ImageModel | None = None
    batch_size: int = 500
    seed: int = 0

    @cached_property
    def observed(self) -> Explanation:
        """Logits and keypoints of the test images, without their pixels."""
        return observe_all(self.model, self.test.images, self.batch_size)

    @property
    def shared(self) -> Shared:
        """Keyword arguments for each metric that is computed from `observed`."""
        return {"batch_size": self.batch_size, "observed": self.observed}

    @property
    def meets(self) -> frozenset[Need]:
        """The requirements of metrics that this subject meets.

        They are the abilities of the model, and the optional inputs that are not None.
        """
        optional_inputs: dict[Need, object] = {
            Given.TRAIN: self.train,
            Given.JUDGE: self.judge,
            Given.MASKS: self.test.masks,
        }
        given = {need for need, value in optional_inputs.items() if value is not None}
        return self.model.abilities | given


@dataclass(frozen=True)
class Explained:
    """A batch of explained images: the input of metrics of explanations.

    The explanation may be the model's own or that of a post-hoc method.

    Attributes:
        model: the explained model.
        explanation: explanation of B images.
        test: the images with their labels, and with masks or None.
        explain: function from images (B, C, H, W) in [0, 1] to their explanation by the same
            method.
        judge: a classifier of the same classes, trained on greyed images, or None.
        targets: (B,) indices of the explained classes; None for the predicted classes.
        seconds: duration of the explanation; NaN if it was not timed.
        seed: seed of all random draws for this batch.
    """

    model: ImageModel
    explanation: Explanation
    test: ImageSet[Tensor]
    explain: Callable[[Tensor], Explanation]
    judge: ImageModel | None = None
    targets: Tensor | None = None
    seconds: float = nan
    seed: int = 0

    @property
    def meets(self) -> frozenset[Need]:
        """The requirements of metrics that this batch meets.

        Whether there are keypoints and maps depends on the explanation and not on the model: a
        post-hoc method returns maps even for a model that has no maps of its own.
        """
        available: dict[Need, object] = {
            Ability.KEYPOINTS: self.explanation.keypoints,
            Ability.MAPS: self.explanation.maps,
            Given.JUDGE: self.judge,
            Given.MASKS: self.test.masks,
        }
        other_abilities = self.model.abilities - {Ability.KEYPOINTS, Ability.MAPS}
        return other_abilities | {need for need, value in available.items() if value is not None}

    @property
    def truth(self) -> Tensor:
        """Masks (B, 1, H, W), above 0 in the annotated regions."""
        assert self.test.masks is not None
        return self.test.masks
