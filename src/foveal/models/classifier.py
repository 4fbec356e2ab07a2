"""Models that name classes, told from those that rebuild images."""

from foveal.foundation.errors import UserError
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def as_classifier(model: ImageModel, otherwise: str) -> ImageModel:
    """Return a model that has a logit for each class.

    Args:
        model: any.
        otherwise: the error for a model without classes.

    Raises:
        UserError: it has none.
    """
    if Ability.CLASSES not in model.abilities:
        raise UserError(otherwise)
    return model
