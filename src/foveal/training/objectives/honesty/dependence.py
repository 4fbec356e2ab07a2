"""Dependence: the statistical dependence between keypoints and classes, as a loss."""

import torch
from torch import Tensor

WIDTHS = (0.1, 0.3, 1.0)  # widths of the kernels in grid units


def dependence(locations: Tensor, labels: Tensor) -> Tensor:
    """Return the centred kernel alignment of locations and classes, from 0 to 1.

    It tells how far images of the same class have similar locations (Cortes, Mohri & Rostamizadeh
    2012, "Algorithms for learning kernels based on centered alignment", definition 4). Locations
    are compared by a sum of Gaussian kernels of several widths, and classes by equality. If
    locations do not depend on the class, the alignment is small, but in a batch of B images it is
    still at least about 1 / sqrt(B).

    Args:
        locations: (B, D), such as flattened keypoints in grid units.
        labels: (B,) class indices.
    """
    squared_distance = (locations[:, None] - locations).square().sum(dim=-1)
    kernels = [(-squared_distance / (2 * width**2)).exp() for width in WIDTHS]
    similarity = torch.stack(kernels).sum(dim=0)
    same_class = (labels[:, None] == labels).to(locations.dtype)
    location_kernel, class_kernel = _centre(similarity), _centre(same_class)
    squared_norms = location_kernel.square().sum() * class_kernel.square().sum()
    return (location_kernel * class_kernel).sum() / squared_norms.clamp_min(1e-12).sqrt()


def _centre(kernel: Tensor) -> Tensor:
    """Return a kernel (B, B) shifted so that each row and each column has a mean of 0."""
    column_means, row_means = kernel.mean(dim=0, keepdim=True), kernel.mean(dim=1, keepdim=True)
    return kernel - column_means - row_means + kernel.mean()
