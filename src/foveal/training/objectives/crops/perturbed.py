"""The perturbed maximum: a top-k whose gradient is estimated with noise."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES, SIGMA = 64, 0.5


def perturbed_top(scores: Tensor, count: int) -> Tensor:
    """Return the mean choice of the best of perturbed scores, with a gradient.

    Scores are standardised over the candidates first. Cordonnier et al. 2021, "Differentiable patch
    selection for image recognition", after Berthet et al. 2020: choices are means over draws of
    Gaussian noise, and their Jacobian is that of the expectation.

    Args:
        scores: (B, N).
        count: how many are chosen.

    Returns:
        (B, count, N), each row sums to 1; rows are in the order of the candidates.
    """
    mean, std = scores.mean(dim=1, keepdim=True), scores.std(dim=1, keepdim=True)
    found: Tensor = _PerturbedTop.apply((scores - mean) / std.clamp_min(1e-6), count)
    return found


class _PerturbedTop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: int) -> Tensor:
        noise = torch.randn(scores.shape[0], SAMPLES, scores.shape[1], device=scores.device)
        best = (scores[:, None] + SIGMA * noise).topk(count, dim=2).indices.sort(dim=2).values
        chosen = F.one_hot(best, scores.shape[1]).to(scores.dtype)  # (B, S, k, N)
        ctx.save_for_backward(chosen, noise)
        return chosen.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        chosen, noise = ctx.saved_tensors
        each = torch.einsum("bkn,bskn->bs", gradients[0], chosen)
        return torch.einsum("bs,bsn->bn", each, noise) / (SAMPLES * SIGMA), None
