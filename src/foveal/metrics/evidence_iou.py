"""Evidence IoU: how well the evidence and the truth cover each other."""

import torch
from torch import Tensor

from foveal.explanation import Explanation, ranks
from foveal.metrics.truth import check_truth


def evidence_iou(explanation: Explanation, truth: Tensor) -> Tensor:
    """Return for each image (B,) the intersection over union of its evidence and the truth.

    Patches are their own evidence. Of maps it is as many of the hottest pixels as the truth has,
    so that no threshold is to be chosen. NaN where the truth is empty.

    Args:
        explanation: of B images, with maps or patches.
        truth: (B, H, W) or (B, 1, H, W), above 0 where it is.

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
