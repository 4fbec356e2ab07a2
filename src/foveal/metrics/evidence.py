"""Evidence: how much of an image the decision was made from."""

import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.geometry import patch_mask
from foveal.metrics.looks import Looks, look_over
from foveal.models.image_model import ImageModel


def evidence_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, looks: Looks | None = None
) -> float:
    """Return the share of an image's pixels that its patches cover together, mean over `test`.

    Pixels that several patches share count once, and what lies outside of the image not at all.
    Those of a thumbnail that is seen too are added. A model without patches decides from every
    pixel: 1.

    Args:
        model: of any family.
        test: images; their labels are not read.
        batch_size: images in one pass; bounds the memory.
        looks: the model's looks at `test`, where they are known already.
    """
    looks = looks or look_over(model, test.images, batch_size)
    if looks.keypoints is None:
        return 1.0
    masks = evidence_masks(looks, batch_size)
    coarse = looks.thumbnail_px * len(masks)
    return min(1.0, (int(masks.sum()) + coarse) / masks.numel())


def evidence_masks(looks: Looks, batch_size: int = 500) -> Tensor:
    """Return which pixels a model with keypoints decided from, as booleans (N, H, W).

    Args:
        looks: a model's looks at N images, with keypoints.
        batch_size: images at a time; bounds the memory beside the result.
    """
    keypoints, patch_size, scales = looks.keypoints, looks.patch_size, looks.scales
    assert keypoints is not None
    assert patch_size is not None
    parts = []
    for first in range(0, len(keypoints), batch_size):
        part = slice(first, first + batch_size)
        spacing = None if scales is None else scales[part]
        parts.append(patch_mask(keypoints[part], patch_size, looks.size, spacing))
    return torch.cat(parts)
