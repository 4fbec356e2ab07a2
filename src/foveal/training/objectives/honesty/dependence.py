"""Dependence: the statistical dependence between keypoints and classes, as a loss."""

import torch
from torch import Tensor

WIDTHS = (0.1, 0.3, 1.0)  # widths of the kernels in grid units


def dependence(locations: Tensor, labels: Tensor) -> Tensor:
    """Return the centred kernel alignment of locations and classes, from 0 to 1.

    A sum of Gaussian kernels of several widths compares locations, equality compares classes
    (Cortes, Mohri & Rostamizadeh 2012, "Algorithms for learning kernels based on centered
    alignment", definition 4). For independent locations, it is near 0, but at least about
    1 / sqrt(B) in a batch of B images.

    Args:
        locations: (B, D), such as flattened keypoints in grid units.
        labels: (B,) class indices.
    """
    distance = (locations[:, None] - locations).square().sum(dim=-1)
    similar = torch.stack([(-distance / (2 * width**2)).exp() for width in WIDTHS]).sum(dim=0)
    first, second = _centred(similar), _centred((labels[:, None] == labels).to(locations.dtype))
    norms = (first.square().sum() * second.square().sum()).clamp_min(1e-12).sqrt()
    return (first * second).sum() / norms


def _centred(kernel: Tensor) -> Tensor:
    rows, columns = kernel.mean(dim=0, keepdim=True), kernel.mean(dim=1, keepdim=True)
    return kernel - rows - columns + kernel.mean()
