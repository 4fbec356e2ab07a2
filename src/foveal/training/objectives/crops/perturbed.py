"""Perturbed top-k: a selection whose gradient is estimated with noise."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 64  # draws of noise per image
SIGMA = 0.5  # standard deviation of the noise


def perturbed_top(scores: Tensor, count: int) -> Tensor:
    """Return the selection of the top candidates, averaged over noise on the scores.

    The top candidates change in steps as the scores change, so a single selection has no useful
    gradient. Here many draws of Gaussian noise are added to the scores, and the selections are
    averaged; the gradient is an estimate of that of the expected selection (Cordonnier et al. 2021,
    "Differentiable patch selection for image recognition", after Berthet et al. 2020). The scores
    of an image are first standardised over its candidates, so that their scale does not matter.

    Args:
        scores: scores (B, N) of the candidates; N is at least 2.
        count: number of candidates to select.

    Returns:
        (B, count, N): each row holds the weights of the candidates at one position of the
        selection and sums to 1. Within a draw, the positions are in the order of the candidates,
        not of their scores.
    """
    mean, std = scores.mean(dim=1, keepdim=True), scores.std(dim=1, keepdim=True)
    selection: Tensor = _PerturbedTop.apply((scores - mean) / std.clamp_min(1e-6), count)
    return selection


class _PerturbedTop(torch.autograd.Function):
    """Mean of top-k selections under Gaussian noise, with a gradient estimated by sampling."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: int) -> Tensor:
        noise = torch.randn(scores.shape[0], SAMPLES, scores.shape[1], device=scores.device)
        indices = (scores[:, None] + SIGMA * noise).topk(count, dim=2).indices.sort(dim=2).values
        selected = F.one_hot(indices, scores.shape[1]).to(scores.dtype)  # (B, S, k, N)
        ctx.save_for_backward(selected, noise)
        return selected.mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        selected, noise = ctx.saved_tensors
        # The derivative of the expectation is the mean of selection times noise, over sigma.
        products = torch.einsum("bkn,bskn->bs", gradients[0], selected)
        return torch.einsum("bs,bsn->bn", products, noise) / (SAMPLES * SIGMA), None
