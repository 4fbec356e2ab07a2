"""Evidence IoU: the overlap of the evidence and the annotated region."""

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, localisation
from foveal.observation.tensors import ranks


def evidence_iou(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the intersection over union of evidence and annotated region.

    The evidence of patches is the patches themselves. The evidence of a map is its hottest pixels,
    as many as the region has, which avoids a threshold. NaN if the region is empty.

    See `localisation` for the arguments.

    Raises:
        ValueError: the shapes do not match, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    size = inside.sum(dim=(-2, -1))
    if explanation.maps is None:
        evidence = explanation.heat > 0
    else:
        evidence = ranks(explanation.heat) < size[:, None, None]
    intersection = (evidence & inside).sum(dim=(-2, -1))
    union = (evidence | inside).sum(dim=(-2, -1))
    return torch.where(size > 0, intersection / union, float("nan"))


EVIDENCE_IOU = localisation(
    Column(
        "evidence_iou",
        "evidence IoU",
        "{:.2f}",
        "intersection over union of the evidence and the annotated region",
        "higher",
    ),
    evidence_iou,
)
