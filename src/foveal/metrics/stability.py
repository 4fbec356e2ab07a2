"""Stability: change in an explanation under noise that does not change the prediction."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.images.geometry import to_px
from foveal.images.values import as_floats
from foveal.metrics.metric import SAMPLE, ExplanationMetric
from foveal.metrics.subject import Explained

FRACTION = 0.1  # fraction of the pixels, the hottest ones, that counts as a map's evidence
NOISE = 0.05  # standard deviation of the noise on pixels in [0, 1]


class Stability(NamedTuple):
    """Stability of an explanation under noise, as means over images.

    Attributes:
        stable_answers: fraction of images whose prediction does not change.
        stable_evidence: intersection over union of the evidence with and without the noise, for the
            images whose prediction does not change.
        keypoint_shift_px: mean shift of a keypoint in pixels, for the same images; None for an
            explanation without keypoints.
    """

    stable_answers: float
    stable_evidence: float
    keypoint_shift_px: float | None


def stability(
    explain: Callable[[Tensor], Explanation],
    test: ImageSet,
    noise: float = NOISE,
    seed: int = 0,
    *,
    batch_size: int = 500,
) -> Stability:
    """Return how stable predictions and their explanations are under noise on the pixels.

    The evidence of a map is the hottest tenth of its pixels.

    Args:
        explain: function from images (B, C, H, W) in [0, 1] to their explanation, by a model or a
            post-hoc method.
        test: images; labels are not used.
        noise: standard deviation of the normal noise on each pixel, in [0, 1].
        seed: seed of the noise; the caller's random generators are left unchanged.
        batch_size: images explained at a time.
    """
    unchanged, overlaps, shifts = [], [], []
    for number, batch in enumerate(test.images.split(batch_size)):
        images = as_floats(batch)
        before, after = explain(images), explain(noisy(images, noise, seed + number))
        unchanged.append(before.predictions == after.predictions)
        overlaps.append(evidence_overlap(before, after))
        if before.keypoints is not None:
            shifts.append(keypoint_shift_px(before, after))
    return Stability(
        float(torch.cat(unchanged).float().mean()),
        float(torch.cat(overlaps).nanmean()),
        float(torch.cat(shifts).nanmean()) if shifts else None,
    )


def noisy(images: Tensor, noise: float, seed: int) -> Tensor:
    """Return images in [0, 1] with normal noise on each pixel, clamped to [0, 1]."""
    normal = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + noise * normal.to(images)).clamp(0, 1)


def evidence_overlap(before: Explanation, after: Explanation) -> Tensor:
    """Return the intersection over union (B,) of the evidence; NaN if the prediction changed."""
    first, second = before.top_evidence(FRACTION), after.top_evidence(FRACTION)
    intersection = (first & second).sum(dim=(-2, -1))
    union = (first | second).sum(dim=(-2, -1))
    return _where_unchanged(before, after, intersection / union.clamp(min=1))


def keypoint_shift_px(before: Explanation, after: Explanation) -> Tensor:
    """Return the mean shift (B,) of the keypoints in pixels; NaN if the prediction changed."""
    assert before.keypoints is not None
    assert after.keypoints is not None
    shift = to_px(after.keypoints, after.size) - to_px(before.keypoints, before.size)
    return _where_unchanged(before, after, shift.norm(dim=-1).mean(dim=-1))


def _where_unchanged(before: Explanation, after: Explanation, values: Tensor) -> Tensor:
    """Return values (B,) with NaN for images whose prediction changed."""
    return torch.where(before.predictions == after.predictions, values, float("nan"))


def _measure(batch: Explained) -> dict[str, Tensor]:
    images = as_floats(batch.test.images)
    before, after = batch.explanation, batch.explain(noisy(images, NOISE, batch.seed))
    values = {"stable_evidence": evidence_overlap(before, after)}
    if before.keypoints is not None:
        values["keypoint_shift_px"] = keypoint_shift_px(before, after)
    return values


STABILITY = ExplanationMetric(
    "stability",
    _measure,
    (
        Column(
            "stable_evidence",
            "stability",
            "{:.2f}",
            "intersection over union of the evidence before and after slight noise that does not "
            "change the prediction",
            "higher",
        ),
        Column(
            "keypoint_shift_px",
            "keypoint shift",
            "{:.2f} px",
            "mean shift of a keypoint under slight noise that does not change the prediction",
            "lower",
        ),
    ),
    sample=SAMPLE,
)
