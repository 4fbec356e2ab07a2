"""What every classifier is: logits, and what was looked at for them."""

from abc import ABC

from foveal.errors import UserError
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel, Inputs


class ImageClassifier(ImageModel, ABC):
    """An image classifier that can say what it looked at.

    Args:
        in_channels: channels C of the images.
        num_classes: number of classes.
        inputs: what images the model expects.

    Raises:
        UserError: `inputs` fit neither the channels nor the classes.
    """

    abilities = frozenset({Ability.CLASSES})

    def __init__(self, in_channels: int, num_classes: int, inputs: Inputs):
        super().__init__(in_channels, inputs)
        if len(inputs.classes) not in (0, num_classes):
            raise UserError(
                f"Expected {num_classes} names in inputs.classes, one a class, "
                f"but got {len(inputs.classes)}."
            )
        self.num_classes = num_classes


def as_classifier(model: ImageModel, otherwise: str) -> ImageClassifier:
    """Return a model that has a logit for each class.

    Args:
        model: any.
        otherwise: the error for a model without classes.

    Raises:
        UserError: it has none.
    """
    if not isinstance(model, ImageClassifier):
        raise UserError(otherwise)
    return model
