"""A whitening first layer, whose filters are computed from training images instead of learned."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.foundation.arguments import Range
from foveal.foundation.errors import UserError

Whiten = Annotated[int, Range(0, 16)]  # side of the patches in pixels, 0 for none
MAX_VALUES = 1024  # per patch; the number of filter weights grows with the square of this number
FIT_BATCH = 500  # images whose patches are in memory at a time


class WhiteningConv(nn.Module):
    """A convolution whose outputs are uncorrelated over small patches of the training images.

    The filters are the eigenvectors of the patches' covariance, each divided by the square root of
    its eigenvalue, followed by the negatives of these filters (Page 2019, "How to train your
    ResNet"; Jordan 2024, arXiv:2404.00498, section 3.2). `fit` sets them once, and they are not
    trained; only the bias is learned. Before `fit` each filter copies one value of the patch or its
    negative.

    Args:
        in_channels: channels C of the images.
        size: side k of a patch in pixels. There is no padding, so the output is smaller by k - 1.
        eps: added to the eigenvalues, so that rare patterns are not amplified without limit.

    Raises:
        UserError: a patch has more than 1,024 values.
    """

    weight: Tensor

    def __init__(self, in_channels: int, size: int = 2, eps: float = 5e-4):
        super().__init__()
        if in_channels * size**2 > MAX_VALUES:
            raise UserError(
                f"Expected whitened patches of at most {MAX_VALUES:,} values, but got "
                f"{size}x{size} pixels of {in_channels} channels."
            )
        self.size = size
        self.eps = eps
        self.out_channels = 2 * in_channels * size**2
        basis = torch.eye(self.out_channels // 2).unflatten(1, (in_channels, size, size))
        self.register_buffer("weight", torch.cat([basis, -basis]))  # (2Ckk, C, k, k)
        self.bias = nn.Parameter(torch.zeros(self.out_channels))

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the filters from normalised training images (N, C, H, W), in place.

        A few thousand images suffice.

        Raises:
            UserError: an image is smaller than a patch.
        """
        self._check(images)
        products, patch_count = torch.zeros(()), 0
        # On the CPU, because MPS has no double precision; in batches, because patches take memory.
        for batch in images.cpu().split(FIT_BATCH):
            patches = F.unfold(batch.double(), self.size).transpose(1, 2).flatten(0, 1)  # (M, Ckk)
            products = products + patches.T @ patches
            patch_count += len(patches)
        # For normalised images, whose mean is about 0, this is the covariance.
        eigenvalues, eigenvectors = torch.linalg.eigh(products / patch_count)
        filters = (eigenvectors / (eigenvalues + self.eps).sqrt()).T.flip(0)  # strongest first
        filters = filters.unflatten(1, self.weight.shape[1:]).to(self.weight)
        self.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2Ckk, H - k + 1, W - k + 1) for normalised images (B, C, H, W).

        Raises:
            UserError: an image is smaller than a patch.
        """
        self._check(images)
        return F.conv2d(images, self.weight, self.bias)

    def _check(self, images: Tensor) -> None:
        """Raise UserError if the images are smaller than a patch."""
        if min(images.shape[-2:]) < self.size:
            raise UserError(
                f"Expected images of at least {self.size}x{self.size} pixels, "
                f"but got {images.shape[-2]}x{images.shape[-1]}."
            )
