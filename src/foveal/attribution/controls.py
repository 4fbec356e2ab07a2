"""Controls: maps that know nothing of the image, which every explanation must beat."""

from collections.abc import Callable

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.models.image_model import ImageModel
from foveal.models.images import Images


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


CONTROLS: dict[str, Callable[[tuple[int, int]], Tensor]] = {"centre": centre, "uniform": uniform}


def control(model: ImageModel, images: Images, name: str) -> Explanation:
    """Return a model's answers to images (B, C, H, W) with one of `CONTROLS` as their map."""
    answered = model.explain(images)
    found = CONTROLS[name](answered.size).expand(len(answered), 1, -1, -1)
    return Explanation(
        images=answered.images,
        logits=answered.logits,
        maps=found,
        classes=answered.classes,
        method=name,
    )
