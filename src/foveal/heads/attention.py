"""A head that encodes each patch separately and attends to them, for one or several tasks."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn

from foveal.detectors import Located
from foveal.foundation.arguments import Length, Range
from foveal.foundation.ranges import (
    Channels,
    Classes,
    Fraction,
    Keypoints,
    PatchSize,
    Width,
    Widths,
)
from foveal.heads.head import Head, HeadOutput
from foveal.heads.patch_attention import PatchAttention
from foveal.heads.patch_encoder import PatchEncoder


class AttentionHead(Head):
    """Classifies from a set of patches, each a few dozen pixels wide.

    A small convolutional net turns each patch into a vector (`PatchEncoder`). For each task,
    learned queries then attend to the vectors and their locations (`PatchAttention`). The patches
    are a set: their order does not matter, and their number may vary.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C of the patches.
        num_classes: number of classes of each task.
        tasks: names of the tasks; the first is the main one.
        width: dimension of a patch's vector.
        heads: learned queries per task.
        widths: output channels of the convolutions that encode a patch.
        dropout: fraction of features dropped in training.

    Raises:
        UserError: the width is not a multiple of the number of heads, or an argument is invalid.
    """

    def __init__(
        self,
        keypoints: Keypoints = 20,
        patch_size: PatchSize = 50,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        tasks: Annotated[Sequence[str], Length(1, 64)] = ("class",),
        width: Width = 128,
        heads: Annotated[int, Range(1, 64)] = 8,
        widths: Widths = (16, 32, 64, 96),
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.num_classes, self.tasks, self.width = num_classes, tuple(tasks), width
        self.heads, self.widths, self.dropout = heads, list(widths), dropout
        self.encoder: nn.Module = PatchEncoder(in_channels, widths, width)
        self.attention: nn.Module = PatchAttention(width, len(tasks), heads, num_classes, dropout)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the logits of all tasks for normalised patches (B, K, C, P, P).

        The detector's scores do not change the logits. They receive the gradient of the attention
        weights, so that training raises the scores of patches that deserve more attention.
        """
        vectors = self.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, D)
        score = located.score
        # Adding these zeros changes no value, but passes the gradient on to the scores.
        zeros = None if score is None else score - score.detach()
        logits, weights = self.attention(vectors, located.xy, zeros)
        return multi_task_output(logits, weights)


def multi_task_output(logits: Tensor, weights: Tensor) -> HeadOutput:
    """Return a head's output, given the logits (B, T, classes) and weights (B, T, K) of T tasks.

    The first task is the main one: its logits and weights are those of the output.
    """
    return HeadOutput(logits[:, 0], weights[:, 0], logits, weights)
