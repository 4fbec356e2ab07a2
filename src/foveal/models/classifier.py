"""A check that a model is a classifier."""

from foveal.foundation.errors import UserError
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def as_classifier(model: ImageModel, otherwise: str) -> ImageModel:
    """Return the model, if it has a logit for each class.

    Args:
        model: any model.
        otherwise: message of the error that is raised for a model without classes.

    Raises:
        UserError: the model has no classes.
    """
    if Ability.CLASSES not in model.abilities:
        raise UserError(otherwise)
    return model
