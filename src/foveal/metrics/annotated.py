"""Explanations against annotations: hits, energy inside and overlap."""

from collections.abc import Callable

import torch
from torch import Tensor

from foveal.attribution import CONTROLS, explain_by, own_method
from foveal.data import ImageSet
from foveal.data.annotations import annotated
from foveal.explanation import Explanation
from foveal.metrics.energy_inside import energy_inside
from foveal.metrics.evidence_iou import evidence_iou
from foveal.metrics.looks import as_floats
from foveal.metrics.pointing_game import pointing_game
from foveal.models.image_model import ImageModel

INSIDE: dict[str, Callable[[Explanation, Tensor], Tensor]] = {
    "pointing_game": pointing_game,
    "energy_inside": energy_inside,
    "evidence_iou": evidence_iou,
}


def inside(explanation: Explanation, truth: Tensor) -> dict[str, Tensor]:
    """Return each figure of `INSIDE`, a value (B,) per image.

    Args:
        explanation: of B images, with maps or patches.
        truth: (B, H, W) or (B, 1, H, W), above 0 where it is; NaN are the figures of an image
            where it is nowhere.

    Raises:
        ValueError: truth and explanation do not fit, or there is no heat.
    """
    return {name: figure(explanation, truth) for name, figure in INSIDE.items()}


def annotated_figures(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500
) -> dict[str, float] | None:
    """Return how well a model's own explanation agrees with annotations, means over images.

    Args:
        model: of any family.
        test: images with masks; those whose mask is empty are not measured.
        batch_size: images in one pass.

    Returns:
        `annotated_images`, the figures of `INSIDE`, and the hits of each of `CONTROLS`
        (`centre_pointing_game`, …); None without masks, or if the model does not explain itself.
    """
    method = own_method(model)
    if test.masks is None or method is None:
        return None
    chosen = annotated(test).nonzero()[:, 0]
    found: dict[str, list[Tensor]] = {}
    for batch in test.subset(chosen).batches(batch_size) if len(chosen) else ():
        assert batch.masks is not None
        explanation = explain_by(model, as_floats(model, batch.images), method)
        for name, values in (inside(explanation, batch.masks) | _controls(batch.masks)).items():
            found.setdefault(name, []).append(values.double())
    means = {name: float(torch.cat(parts).nanmean()) for name, parts in found.items()}
    known = {name: value for name, value in means.items() if value == value}
    return {"annotated_images": len(chosen), **known}


def _controls(masks: Tensor) -> dict[str, Tensor]:
    """Return the hits (B,) of each control, none of which needs a model."""
    size = (masks.shape[-2], masks.shape[-1])
    return {
        f"{name}_pointing_game": pointing_game(
            Explanation(masks, masks[:, 0, :1, 0], maps=draw(size).expand(len(masks), 1, -1, -1)),
            masks,
        )
        for name, draw in CONTROLS.items()
    }
