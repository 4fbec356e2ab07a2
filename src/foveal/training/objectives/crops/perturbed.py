"""Perturbed top-k: a selection whose gradient is estimated with noise."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES, SIGMA = 64, 0.5


def perturbed_top(scores: Tensor, count: int) -> Tensor:
    """Return the mean selection of the top candidates over perturbed scores, with a gradient.

    Scores are first standardised over the candidates. Cordonnier et al. 2021, "Differentiable patch
    selection for image recognition", after Berthet et al. 2020: the selection is a mean over draws
    of Gaussian noise, and its Jacobian is that of the expectation.

    Args:
        scores: scores (B, N) of the candidates.
        count: number of candidates to select.

    Returns:
        (B, count, N); each row sums to 1, and rows are in the order of the candidates.
    """
    mean, std = scores.mean(dim=1, keepdim=True), scores.std(dim=1, keepdim=True)
    selection: Tensor = _PerturbedTop.apply((scores - mean) / std.clamp_min(1e-6), count)
    return selection


class _PerturbedTop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: int) -> Tensor:
        noise = torch.randn(scores.shape[0], SAMPLES, scores.shape[1], device=scores.device)
        best = (scores[:, None] + SIGMA * noise).topk(count, dim=2).indices.sort(dim=2).values
        selected = F.one_hot(best, scores.shape[1]).to(scores.dtype)  # (B, S, k, N)
        ctx.save_for_backward(selected, noise)
        return selected.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        selected, noise = ctx.saved_tensors
        products = torch.einsum("bkn,bskn->bs", gradients[0], selected)
        return torch.einsum("bs,bsn->bn", products, noise) / (SAMPLES * SIGMA), None
