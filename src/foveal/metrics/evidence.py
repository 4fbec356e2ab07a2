"""Evidence: the fraction of an image that the decision was made from."""

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
    """Return the values shown by the patches divided by the pixels of an image, mean over `test`.

    Values shown by several patches count once; values outside the image do not count. A patch of
    local means shows one value per mean. The values of a thumbnail, if the model reads one, are
    added. A model without patches decides from every pixel: 1.

    Args:
        model: a model of any family.
        test: images; labels are not used.
        batch_size: images per pass; bounds the memory.
        observed: result of `observe_all` for `test`, if already computed.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    thumbnail_px = 0 if observed.thumbnail is None else observed.thumbnail[0, 0].numel()
    return _fraction(observed, test, batch_size, partial(evidence_px, thumbnail_px=thumbnail_px))


def covered_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the fraction of an image's pixels covered by its patches, mean over `test`.

    It differs from `evidence_fraction` if patches have a scale; the arguments are the same.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    return _fraction(observed, test, batch_size, covered_px)


def _fraction(
    observed: Explanation, test: ImageSet, batch_size: int, count: Callable[..., Tensor]
) -> float:
    """Return `count` of an image's patches divided by its number of pixels, mean over images."""
    if observed.keypoints is None or observed.patch_size is None:
        return 1.0
    total, first = 0.0, 0
    for images, size in _sizes(observed, test):
        visible = 0.0  # without scales a sum of integers, independent of the batches
        for rows in torch.arange(first, first + images).split(batch_size):
            scales = None if observed.scales is None else observed.scales[rows]
            patches = (observed.keypoints[rows], observed.patch_size, size, scales)
            pixels = count(*patches, blocks=observed.blocks)
            visible += float(pixels.sum())
        total += visible / (size[0] * size[1])
        first += images
    return total / len(observed.keypoints)


def _sizes(observed: Explanation, test: ImageSet) -> list[tuple[int, Size]]:
    """Return the number of images of each size, in order."""
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
        for keypoints, scales in _parts(observed, batch_size)
    ]
    return torch.cat(masks)


def _parts(observed: Explanation, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the keypoints (B, K, 2) and the scales (B, K), or None, of each batch."""
    assert observed.keypoints is not None
    for part in torch.arange(len(observed.keypoints)).split(batch_size):
        yield observed.keypoints[part], None if observed.scales is None else observed.scales[part]


EVIDENCE_COLUMN = Column(
    "evidence_fraction",
    "evidence",
    "{:.1%}",
    "fraction of the image's pixels that the decision was made from, 100% for models that see the "
    "whole image; of a map, the hottest 10% that the judge is given",
    "lower",
)
EVIDENCE = Metric(
    "evidence_fraction",
    lambda s: {"evidence_fraction": evidence_fraction(s.model, s.test, **s.shared)},
    (EVIDENCE_COLUMN,),
)
COVERED = Metric(
    "covered_fraction",
    lambda s: {"covered_fraction": covered_fraction(s.model, s.test, **s.shared)},
    (
        Column(
            "covered_fraction",
            "covers",
            "{:.1%}",
            "fraction of the image's pixels covered by the patches, at any resolution",
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
