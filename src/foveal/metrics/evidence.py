"""Evidence: the fraction of an image that the decision was made from.

A patch with a scale above 1 covers more pixels than it shows values: its samples are further apart
than pixels, or are means of blocks of pixels.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.images.geometry import Size, covered_px, evidence_px, patch_mask
from foveal.images.photos import Photos
from foveal.metrics.metric import ExplanationMetric, Metric
from foveal.metrics.observing import observe_all
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def evidence_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the number of values that the patches show, per pixel of an image, mean over `test`.

    Values shown by several patches count once; values outside the image do not count. A patch of
    local means shows one value per mean. The values of a thumbnail, if the model reads one, are
    added. A model without patches decides from every pixel, so that the result is 1.

    Args:
        model: a model of any family.
        test: images; labels are not used.
        batch_size: images per pass; bounds the memory.
        observed: result of `observe_all` for `test`, if already computed.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    thumbnail_px = 0 if observed.thumbnail is None else observed.thumbnail[0, 0].numel()
    count_pixels = partial(evidence_px, thumbnail_px=thumbnail_px)
    return _mean_fraction(observed, test, batch_size, count_pixels)


def covered_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the fraction of an image's pixels covered by its patches, mean over `test`.

    It differs from `evidence_fraction` if patches have scales above 1. The arguments are the same.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    return _mean_fraction(observed, test, batch_size, covered_px)


def _mean_fraction(
    observed: Explanation, test: ImageSet, batch_size: int, count_pixels: Callable[..., Tensor]
) -> float:
    """Return the pixels counted in an image's patches, divided by all pixels, mean over images.

    Args:
        observed: observation of the images.
        test: the images, of one or several sizes.
        batch_size: images per step.
        count_pixels: `covered_px` or `evidence_px`, which returns the count for each image.
    """
    if observed.keypoints is None or observed.patch_size is None:
        return 1.0
    total = 0.0
    start = 0
    for image_count, size in _sizes(observed, test):
        # Without scales this is a sum of integers, which is exact for any batch size.
        visible_px = 0.0
        for rows in torch.arange(start, start + image_count).split(batch_size):
            scales = None if observed.scales is None else observed.scales[rows]
            patch_geometry = (observed.keypoints[rows], observed.patch_size, size, scales)
            visible_px += float(count_pixels(*patch_geometry, blocks=observed.blocks).sum())
        height, width = size
        total += visible_px / (height * width)
        start += image_count
    return total / len(observed.keypoints)


def _sizes(observed: Explanation, test: ImageSet) -> list[tuple[int, Size]]:
    """Return the number of images of each size and that size (H, W), in the order of the images."""
    if not isinstance(test.images, Photos):
        return [(len(test), observed.size)]
    return [(len(part), (part.shape[-2], part.shape[-1])) for part in test.images.parts]


def evidence_masks(observed: Explanation, batch_size: int = 500) -> Tensor:
    """Return the pixels that a model with keypoints decided from, as booleans (N, H, W).

    Args:
        observed: observation of N images, with keypoints.
        batch_size: images per step; bounds the memory in addition to that of the result.
    """
    assert observed.patch_size is not None
    masks = [
        patch_mask(keypoints, observed.patch_size, observed.size, scales, observed.blocks)
        for keypoints, scales in _batches(observed, batch_size)
    ]
    return torch.cat(masks)


def _batches(observed: Explanation, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the keypoints (B, K, 2) and the scales (B, K), or None, of each batch."""
    assert observed.keypoints is not None
    for rows in torch.arange(len(observed.keypoints)).split(batch_size):
        yield observed.keypoints[rows], None if observed.scales is None else observed.scales[rows]


EVIDENCE_COLUMN = Column(
    "evidence_fraction",
    "evidence",
    "{:.1%}",
    "fraction of the image's pixels that the decision was made from, 100% for a model without "
    "patches; for a map in a table of explanations, its hottest 10%, which the judge is shown",
    "lower",
)
EVIDENCE = Metric(
    "evidence_fraction",
    lambda subject: {
        "evidence_fraction": evidence_fraction(subject.model, subject.test, **subject.shared)
    },
    (EVIDENCE_COLUMN,),
)
COVERED = Metric(
    "covered_fraction",
    lambda subject: {
        "covered_fraction": covered_fraction(subject.model, subject.test, **subject.shared)
    },
    (
        Column(
            "covered_fraction",
            "covers",
            "{:.1%}",
            "fraction of the image's pixels that the patches cover, whatever their resolution",
            "for comparison",
        ),
    ),
    needs=frozenset({Ability.CROPS}),
)
PATCH_EVIDENCE = ExplanationMetric(
    "evidence_fraction",
    lambda batch: {"evidence_fraction": batch.explanation.evidence_fraction},
    (EVIDENCE_COLUMN,),
    needs=frozenset({Ability.KEYPOINTS}),
)
