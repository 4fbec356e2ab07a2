"""The interface shared by the model's own explanation and post-hoc methods."""

from abc import ABC, abstractmethod
from typing import ClassVar

from foveal.explanation import Explanation
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets


class Explainer(ABC):
    """Explains the predictions of a model.

    Attributes:
        name: name of the explainer, which its explanations report as their `method`.
        needs: abilities that a model must have to be explained.
    """

    name: str
    needs: ClassVar[frozenset[Ability]] = frozenset()

    def supports(self, model: ImageModel) -> bool:
        """Return whether the explainer supports a model."""
        return self.needs <= model.abilities

    def cost(self, model: ImageModel, shape: tuple[int, int, int]) -> float:
        """Return the cost of prediction and explanation per image, in forward passes.

        The cost is 1 if the explanation is computed together with the prediction. Explainers that
        require further passes override this method.

        Args:
            model: the model to explain.
            shape: C, H and W of an image.
        """
        return 1.0

    @abstractmethod
    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the explanation of a model's predictions.

        Args:
            model: the model to explain; it is not changed.
            images: (B, C, H, W), floats in [0, 1], as for `ImageModel.explain`.
            targets: (B,) indices of the classes to explain; None for the predicted classes.
                Explanations that are the same for all classes, such as keypoints and attention
                maps, do not depend on them.

        Raises:
            UserError: the model is not supported, or a target is not one of its classes.
            ValueError: the images do not have the model's shape or type.
        """
