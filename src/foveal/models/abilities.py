"""Abilities of models: what their results hold and what can be done with their parts."""

from enum import Enum


class Ability(Enum):
    """What a metric or an explainer may require of a model."""

    CLASSES = "returns a logit for each class"
    IN_PART = "reads no more of large images than thumbnails and patches"
    CROPS = "encodes each of its patches by a backbone, and chooses them among candidates"
    BACKBONE = "computes its logits from the features of a backbone"
    KEYPOINTS = "its result holds keypoints and the patches around them"
    MAPS = "its decision weights features by attention maps, which its result holds"
    REBUILT = "returns the image rebuilt from patches"
    CONTRIBUTIONS = "its logits are sums over locations, whose terms it returns"
    GIVEN_KEYPOINTS = "classifies the patches at given keypoints"
    GIVEN_MAPS = "classifies features weighted by given attention maps"


# Names of the training objectives of models with an ability; the first one counts.
OBJECTIVES = {
    Ability.IN_PART: "ranking",
    Ability.REBUILT: "reconstruction",
    Ability.CROPS: "crops",
}
