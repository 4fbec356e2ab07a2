"""The interface of heads: patches and locations -> logits, or the image rebuilt."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from foveal.detectors import Located
from foveal.foundation.parts import Part


class HeadOutput(NamedTuple):
    """Output of a head for the patches of B images."""

    logits: Tensor  # (B, classes)
    weights: Tensor | None = None  # (B, K), attention to each patch
    task_logits: Tensor | None = None  # (B, T, classes), of all tasks, the main one first
    task_weights: Tensor | None = None  # (B, T, K)
    rebuilt: Tensor | None = None  # (B, C, H, W) in [0, 1], the image rebuilt from the patches
    latent: tuple[Tensor, Tensor] | None = None  # mean and logarithm of the variance (B, L)
    contributions: Tensor | None = None  # (B, K, classes), each patch's term of each logit


class Head(Part):
    """Classifies from patches and locations, or rebuilds the image, which it never reads.

    A subclass is final and keeps each argument as an attribute, see `Part`.

    Attributes:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C of the patches.
        num_classes: number of classes; 0 for a head that rebuilds images.
        context: dimension D of the vector that it reads in addition to the patches; 0 for none.
        rebuilds: whether it rebuilds the image from the patches on a canvas, without classes.
        softness_px: width of the patches' soft edges if it rebuilds images; through these the
            gradient reaches the locations (straight-through estimator, Bengio et al. 2013: the
            head gets hard edges).
        tasks: names of the tasks for which it computes logits; the first is the main one.
        encodes: whether it has a `backbone` that encodes each patch.
        additive: whether each logit is the sum of the patches' contributions and a bias.
    """

    keypoints: int
    patch_size: int
    in_channels: int
    num_classes: int = 0
    context: int = 0
    rebuilds: bool = False
    softness_px: float = 1.0
    tasks: tuple[str, ...] = ("class",)
    additive: bool = False
    encodes: bool = False

    @abstractmethod
    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return logits and further outputs for normalised patches (B, K, C, P, P)."""
