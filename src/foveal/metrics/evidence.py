"""Evidence: how much of an image the decision was made from."""

from foveal.data import ImageSet
from foveal.geometry import patch_mask
from foveal.metrics.looks import Looks, look_over
from foveal.models.image_model import ImageModel


def evidence_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, looks: Looks | None = None
) -> float:
    """Return the share of an image's pixels that its patches cover together, mean over `test`.

    Pixels that several patches share count once, and what lies outside of the image not at all.
    A model without patches decides from every pixel: 1.

    Args:
        model: of any family.
        test: images; their labels are not read.
        batch_size: images in one pass; bounds the memory.
        looks: the model's looks at `test`, where they are known already.
    """
    looks = looks or look_over(model, test.images, batch_size)
    keypoints, patch_size, scales = looks.keypoints, looks.patch_size, looks.scales
    if keypoints is None or patch_size is None:
        return 1.0
    covered = 0
    for first in range(0, len(keypoints), batch_size):
        part = slice(first, first + batch_size)
        spacing = None if scales is None else scales[part]
        covered += int(patch_mask(keypoints[part], patch_size, looks.size, spacing).sum())
    height, width = looks.size
    return covered / (len(keypoints) * height * width)
