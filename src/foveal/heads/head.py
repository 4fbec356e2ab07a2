"""The interface of heads, which turn patches and locations into logits or the rebuilt image."""

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor

from foveal.detectors import Located
from foveal.foundation.parts import Part


class HeadOutput(NamedTuple):
    """Output of a head for the patches of B images; None for values that it does not compute."""

    logits: Tensor  # (B, classes) of the main task; (B, 0) if the head rebuilds images
    weights: Tensor | None = None  # (B, K), the main task's attention to each patch
    task_logits: Tensor | None = None  # (B, T, classes), of all T tasks, the main one first
    task_weights: Tensor | None = None  # (B, T, K), each task's attention to each patch
    rebuilt: Tensor | None = None  # (B, C, H, W) in [0, 1], the image rebuilt from the patches
    latent: tuple[Tensor, Tensor] | None = None  # (B, L) each: mean, log-variance
    contributions: Tensor | None = None  # (B, K, classes), each patch's term of each logit


class Head(Part):
    """Classifies from patches and their locations, or rebuilds the image from them.

    A head gets the patches and the detector's output, but never the image itself. A concrete head
    is not subclassed further, and keeps each constructor argument as an attribute of the same name,
    from which `Part` rebuilds it.

    Attributes:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C of the patches.
        num_classes: number of classes; 0 for a head that rebuilds images.
        context: dimension D of the detector's context vector (`Located.context`), which the head
            reads in addition to the patches; 0 for none.
        rebuilds: whether it rebuilds the image instead of classifying. The model then provides a
            canvas: the patches on an empty image, and the mask of the pixels that they cover.
        softness_px: width in pixels of the soft edges of that mask, for heads that rebuild images.
            The head reads a mask with hard edges, which has no gradient; the locations receive the
            gradient of the soft mask instead (straight-through estimator, Bengio et al. 2013).
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
        """Return logits and further outputs.

        Args:
            patches: normalised patches (B, K, C, P, P).
            located: the locations at which they were cut, and the detector's other outputs.
        """
