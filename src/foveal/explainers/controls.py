"""Controls: maps that know nothing of the image, which every explanation must beat."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.explainers.interface import Explainer
from foveal.explanation import Explanation
from foveal.models.image_model import ImageModel
from foveal.models.images import Images
from foveal.observation.logits import Targets
from foveal.observation.values import ATTRIBUTION


def centre(size: tuple[int, int]) -> Tensor:
    """Return a map (H, W) that falls from 1 in the middle of an image to 0 at its corners.

    People photograph what matters in the middle: this map alone hits most of it.
    """
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in size)
    distance = torch.hypot(rows[:, None], columns)
    return 1 - distance / distance.max().clamp_min(1)


def uniform(size: tuple[int, int]) -> Tensor:
    """Return a map (H, W) of ones: it hits by the area of the truth alone."""
    return torch.ones(size)


@dataclass(frozen=True)
class Control(Explainer):
    """The same map for all images of a size.

    Attributes:
        name: `method` of its explanations.
        draw: returns the map (H, W) for images of a size (H, W) in pixels.
    """

    name: str
    draw: Callable[[tuple[int, int]], Tensor]

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return a model's answers with the map: see `Explainer`."""
        answered = model.explain(images)
        return Explanation(
            images=answered.images,
            logits=answered.logits,
            maps=self.draw(answered.size).expand(len(answered), 1, -1, -1),
            classes=answered.classes,
            method=self.name,
            values=ATTRIBUTION,
        )


CONTROLS = {one.name: one for one in (Control("centre", centre), Control("uniform", uniform))}
