"""Controls: maps that do not depend on the image, as baselines for explanations.

A useful explanation must score better than these maps.
"""

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
    """Return a map (H, W) that decreases from 1 at the centre of an image to 0 at its corners.

    Photographs tend to show their subject in the centre, where this map is highest.
    """
    rows, columns = (torch.arange(side) - (side - 1) / 2 for side in size)
    distance = torch.hypot(rows[:, None], columns)
    return 1 - distance / distance.max().clamp_min(1)


def uniform(size: tuple[int, int]) -> Tensor:
    """Return a map (H, W) of ones.

    Its scores in localisation metrics depend only on the area of the annotated region.
    """
    return torch.ones(size)


@dataclass(frozen=True)
class Control(Explainer):
    """An explainer that returns the same map for all images of a size.

    Attributes:
        name: name of the control, which its explanations report as their `method`.
        draw: function that returns the map (H, W) for an image size (H, W) in pixels.
    """

    name: str
    draw: Callable[[tuple[int, int]], Tensor]

    def __call__(
        self, model: ImageModel, images: Images, targets: Targets | None = None
    ) -> Explanation:
        """Return a model's predictions with the control's map, which ignores the targets.

        The arguments are those of `Explainer`.
        """
        explanation = model.explain(images)
        return Explanation(
            images=explanation.images,
            logits=explanation.logits,
            maps=self.draw(explanation.size).expand(len(explanation), 1, -1, -1),
            classes=explanation.classes,
            method=self.name,
            values=ATTRIBUTION,
        )


CONTROLS = {
    control.name: control for control in (Control("centre", centre), Control("uniform", uniform))
}
