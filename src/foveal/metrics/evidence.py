"""Evidence: how much of an image the decision was made from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from foveal.columns import Column
from foveal.data import ImageSet
from foveal.explanation import Explanation
from foveal.geometry import evidence_px, patch_mask
from foveal.metrics.metric import ExplanationMetric, Metric
from foveal.metrics.observing import observe_all
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def evidence_fraction(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the fraction of an image's pixels that its patches cover, mean over `test`.

    Pixels that several patches cover count once, and what lies outside of the image not at all.
    Those of a thumbnail that is read too are added. A model without patches decides from every
    pixel: 1.

    Args:
        model: of any family.
        test: images; their labels are not read.
        batch_size: images in one pass; bounds the memory.
        observed: what `observe_all` returns for `test`, where it is known already.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    if observed.keypoints is None or observed.patch_size is None:
        return 1.0
    (height, width), side = observed.size, observed.patch_size
    coarse = 0 if observed.thumbnail is None else observed.thumbnail[0, 0].numel()
    pixels = sum(
        float(evidence_px(keypoints, side, observed.size, scales, coarse).sum())
        for keypoints, scales in _parts(observed, batch_size)
    )
    return pixels / (len(observed.keypoints) * height * width)


def evidence_masks(observed: Explanation, batch_size: int = 500) -> Tensor:
    """Return which pixels a model with keypoints decided from, as booleans (N, H, W).

    Args:
        observed: N images, with keypoints.
        batch_size: images at a time; bounds the memory beside the result.
    """
    assert observed.patch_size is not None
    masks = [
        patch_mask(keypoints, observed.patch_size, observed.size, scales)
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
EVIDENCE_OF_PATCHES = ExplanationMetric(
    "evidence_fraction",
    lambda batch: {"evidence_fraction": batch.explanation.evidence_fraction},
    (EVIDENCE_COLUMN,),
    needs=frozenset({Ability.KEYPOINTS}),
)
