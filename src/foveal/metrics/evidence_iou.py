"""Evidence IoU: the overlap of the evidence and the annotated region."""

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, localisation
from foveal.observation.tensors import ranks


def evidence_iou(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the intersection over union of evidence and annotated region.

    The evidence of an explanation with patches is their pixels. The evidence of a map is its
    hottest pixels, as many as the region has, so that no threshold is needed. The value is NaN if
    the region is empty.

    `truth`, (B, H, W) or (B, 1, H, W), is above 0 in the annotated region.

    Raises:
        ValueError: the shapes do not match, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    region_px = inside.sum(dim=(-2, -1))
    if explanation.maps is None:
        evidence = explanation.heat > 0
    else:
        evidence = ranks(explanation.heat) < region_px[:, None, None]
    intersection = (evidence & inside).sum(dim=(-2, -1))
    union = (evidence | inside).sum(dim=(-2, -1))
    return torch.where(region_px > 0, intersection / union, float("nan"))


EVIDENCE_IOU = localisation(
    Column(
        "evidence_iou",
        "evidence IoU",
        "{:.2f}",
        "intersection over union of the annotated region and the evidence: the patches or, for a "
        "map, as many of its hottest pixels as the region has",
        "higher",
    ),
    evidence_iou,
)
