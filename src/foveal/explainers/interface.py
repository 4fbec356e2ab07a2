"""The interface of explainers: of the model itself and of post-hoc methods alike."""

from abc import ABC, abstractmethod
from typing import ClassVar

from foveal.explanation import Explanation
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets


class Explainer(ABC):
    """Explains the answers of a model.

    Attributes:
        name: `method` of its explanations.
        needs: abilities that it requires of a model.
    """

    name: str
    needs: ClassVar[frozenset[Ability]] = frozenset()

    def supports(self, model: ImageModel) -> bool:
        """Return whether it can explain a model."""
        return self.needs <= model.abilities

    def cost(self, model: ImageModel, shape: tuple[int, int, int]) -> float:
        """Return what an explanation costs per image, the answer included, in forward passes.

        Args:
            model: that is explained.
            shape: C, H and W of an image.
        """
        return 1.0

    @abstractmethod
    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return the explanation of a model's answers.

        Args:
            model: that is explained; it stays as it was.
            images: (B, C, H, W), floats in [0, 1], as `ImageModel.explain` takes them.
            targets: (B,) indices of the classes explained; the predictions if not given. Keypoints
                and attention are the same for all classes.

        Raises:
            UserError: it cannot explain this model, or a target is none of its classes.
            ValueError: the images are not of the model's shape or type.
        """
