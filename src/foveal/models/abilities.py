"""Abilities of models: which metrics, explainers and training objective can be used with them."""

from collections.abc import Container
from enum import Enum


class Ability(Enum):
    """An ability that a metric or an explainer may require of models.

    The values complete the sentence "Expected a model that ..." in error messages.
    """

    CLASSES = "returns a logit for each class"
    IN_PART = "reads only thumbnails and patches of large images"
    CROPS = "encodes patches, chosen among candidates, with a backbone"
    BACKBONE = "computes its logits from the features of a backbone"
    KEYPOINTS = "returns keypoints and the patches around them"
    MAPS = "weights features by attention maps, which it returns"
    REBUILT = "returns the image rebuilt from patches"
    CONTRIBUTIONS = "computes logits as sums over locations, whose terms it returns"
    GIVEN_KEYPOINTS = "classifies the patches at given keypoints"
    GIVEN_MAPS = "classifies features weighted by given attention maps"


def objective_of(abilities: Container[Ability]) -> str:
    """Return the name of the training objective of models with these abilities."""
    objectives = {
        Ability.IN_PART: "ranking",
        Ability.REBUILT: "reconstruction",
        Ability.CROPS: "crops",
    }
    return next(
        (name for ability, name in objectives.items() if ability in abilities), "classification"
    )
