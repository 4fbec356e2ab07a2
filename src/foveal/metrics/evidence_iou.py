"""Evidence IoU: the overlap of the evidence and the annotated region."""

import torch
from torch import Tensor

from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.truth import check_truth, localisation
from foveal.observation.tensors import ranks


def evidence_iou(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the intersection over union of its evidence and the truth.

    Patches are their own evidence. Of maps it is as many of the hottest pixels as the truth has,
    so that no threshold is to be chosen. NaN where the truth is empty.

    For explanation and truth see `localisation`.

    Raises:
        ValueError: truth and explanation do not fit, or there is no heat.
    """
    inside = check_truth(explanation, truth)
    size = inside.sum(dim=(-2, -1))
    if explanation.maps is None:
        evidence = explanation.heat > 0
    else:
        evidence = ranks(explanation.heat) < size[:, None, None]
    both = (evidence & inside).sum(dim=(-2, -1))
    either = (evidence | inside).sum(dim=(-2, -1))
    return torch.where(size > 0, both / either, float("nan"))


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
