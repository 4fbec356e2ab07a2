"""Registry of training objectives, by the names that models use."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from foveal.datasets import ImageSet
from foveal.models import FocusNet, ImageModel
from foveal.training.objectives.classification.features import FeatureClassification
from foveal.training.objectives.classification.objective import Classification
from foveal.training.objectives.crops.objective import CropClassification
from foveal.training.objectives.objective import Objective
from foveal.training.objectives.ranking.objective import Ranking
from foveal.training.objectives.reconstruction.objective import Reconstruction
from foveal.training.settings import Recipe

Sets = Mapping[str, ImageSet[Any]]


def _classification(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    kind = FeatureClassification if recipe.training.cache else Classification
    return _with_class_weights(kind(model, recipe, steps), sets)


def _crops(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return _with_class_weights(CropClassification(model, recipe, steps), sets)


def _with_class_weights(objective: Classification, sets: Sets) -> Objective:
    if objective.recipe.training.balance:
        objective.weigh(sets["train"].labels)
    return objective


def _ranking(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return Ranking(cast(FocusNet, model), recipe, steps, sets)


def _reconstruction(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return Reconstruction(cast(FocusNet, model), recipe, steps)


OBJECTIVES: dict[str, Callable[[ImageModel, Recipe, int, Sets], Objective]] = {
    "classification": _classification,
    "crops": _crops,
    "ranking": _ranking,
    "reconstruction": _reconstruction,
}
