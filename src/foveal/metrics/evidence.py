"""Evidence: how much of an image the decision was made from."""

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
    """Return the values that patches show / the pixels of an image, mean over `test`.

    Values that several patches show count once, and what lies outside of the image not at all. A
    patch whose samples are means shows one value for each. Those of a thumbnail that is read too
    are added. A model without patches decides from every pixel: 1.

    Args:
        model: of any family.
        test: images; their labels are not read.
        batch_size: images in one pass; bounds the memory.
        observed: what `observe_all` returns for `test`, where it is known already.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    coarse = 0 if observed.thumbnail is None else observed.thumbnail[0, 0].numel()
    return _fraction(observed, test, batch_size, partial(evidence_px, thumbnail_px=coarse))


def covered_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the fraction of an image's pixels that its patches lie over, mean over `test`.

    Arguments as of `evidence_fraction`, from which it differs where patches have a scale.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    return _fraction(observed, test, batch_size, covered_px)


def _fraction(
    observed: Explanation, test: ImageSet, batch_size: int, count: Callable[..., Tensor]
) -> float:
    """Return the mean over images of what `count` returns for their patches / their pixels."""
    if observed.keypoints is None or observed.patch_size is None:
        return 1.0
    total, first = 0.0, 0
    for number, size in _sizes(observed, test):
        shown = 0.0  # a sum of integers, whatever the batches, where no patch has a scale
        for rows in torch.arange(first, first + number).split(batch_size):
            scales = None if observed.scales is None else observed.scales[rows]
            patches = (observed.keypoints[rows], observed.patch_size, size, scales)
            pixels = count(*patches, blocks=observed.blocks)
            shown += float(pixels.sum())
        total += shown / (size[0] * size[1])
        first += number
    return total / len(observed.keypoints)


def _sizes(observed: Explanation, test: ImageSet) -> list[tuple[int, Size]]:
    """Return how many images there are of each size in turn."""
    if not isinstance(test.images, Photos):
        return [(len(test), observed.size)]
    return [(len(part), (part.shape[-2], part.shape[-1])) for part in test.images.parts]


def evidence_masks(observed: Explanation, batch_size: int = 500) -> Tensor:
    """Return which pixels a model with keypoints decided from, as booleans (N, H, W).

    Args:
        observed: N images, with keypoints.
        batch_size: images at a time; bounds the memory beside the result.
    """
    assert observed.patch_size is not None
    masks = [
        patch_mask(keypoints, observed.patch_size, observed.size, scales, observed.blocks)
        for keypoints, scales in _parts(observed, batch_size)
    ]
    return torch.cat(masks)


def _parts(observed: Explanation, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield keypoints (B, K, 2) and scales (B, K), or None, of a batch at a time."""
    assert observed.keypoints is not None
    for part in torch.arange(len(observed.keypoints)).split(batch_size):
        yield observed.keypoints[part], None if observed.scales is None else observed.scales[part]


EVIDENCE_COLUMN = Column(
    "evidence_fraction",
    "evidence",
    "{:.1%}",
    "fraction of the image's pixels that the decision was made from; among explanations by maps, "
    "the top 10 % that the judge is shown",
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
            "fraction of the image's pixels that the patches lie over, however coarsely",
            "for comparison",
        ),
    ),
    needs=frozenset({Ability.CROPS}),
)
EVIDENCE_OF_PATCHES = ExplanationMetric(
    "evidence_fraction",
    lambda batch: {"evidence_fraction": batch.explanation.evidence_fraction},
    (EVIDENCE_COLUMN,),
    needs=frozenset({Ability.KEYPOINTS}),
)
