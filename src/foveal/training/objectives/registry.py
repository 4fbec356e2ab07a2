"""Registry of training objectives, by name; `objective_of` returns the name for a model."""

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

Sets = Mapping[str, ImageSet[Any]]  # images, or their stored features, by split


def _make_classification(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    objective_type = FeatureClassification if recipe.training.cache else Classification
    return _with_class_weights(objective_type(model, recipe, steps), sets)


def _make_crops(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return _with_class_weights(CropClassification(model, recipe, steps), sets)


def _with_class_weights(objective: Classification, sets: Sets) -> Objective:
    """Return the same objective, with class weights set if the recipe balances classes."""
    if objective.recipe.training.balance:
        objective.set_class_weights(sets["train"].labels)
    return objective


def _make_ranking(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return Ranking(cast(FocusNet, model), recipe, steps, sets)


def _make_reconstruction(model: ImageModel, recipe: Recipe, steps: int, sets: Sets) -> Objective:
    return Reconstruction(cast(FocusNet, model), recipe, steps)


# Functions that make an objective from a model, a recipe, the number of steps and the images.
OBJECTIVES: dict[str, Callable[[ImageModel, Recipe, int, Sets], Objective]] = {
    "classification": _make_classification,
    "crops": _make_crops,
    "ranking": _make_ranking,
    "reconstruction": _make_reconstruction,
}
