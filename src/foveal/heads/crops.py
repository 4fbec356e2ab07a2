"""A head that encodes each patch by a backbone by itself, and adds up, weighs or mixes these."""

from typing import Annotated

import torch
from torch import Tensor, nn

from foveal.backbones import Backbone
from foveal.detectors import Located
from foveal.foundation.arguments import OneOf, Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Classes, Fraction, Keypoints, PatchSize, Width
from foveal.heads.head import Head, HeadOutput
from foveal.heads.patch_attention import PatchAttention

MIXES = ("additive", "attention", "tokens")
CropMix = Annotated[str, OneOf(MIXES)]
HEADS = 4  # of the attention between tokens
AT_ONCE = 128  # crops that a backbone encodes at once; more are no faster


class CropHead(Head):
    """Classifies from crops of which a backbone sees each alone.

    `additive`: logits = sum over crops of w_k V(crop_k) + b, where the weights w_k are a softmax
    over the crops of gated scores (Ilse et al. 2018, "Attention-based deep multiple instance
    learning"). A crop's contribution to a logit is a term of that sum, and so exact. `attention`:
    learned queries read the crops (`PatchAttention`). `tokens`: a transformer layer mixes them.
    The last two also read where the crops lie.

    Args:
        backbone: a crop -> features, whose global vector is read.
        keypoints: number K of crops.
        patch_size: side P of a crop in samples.
        num_classes: number of classes.
        mix: `additive`, `attention` or `tokens`.
        width: of the layer that weighs a crop, or of a token.
        dropout: fraction of the vectors' features dropped in training.

    Raises:
        UserError: the width is no multiple of 4 for `attention` or `tokens`.
    """

    encodes = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        keypoints: Keypoints = 5,
        patch_size: PatchSize = 96,
        num_classes: Classes = 10,
        mix: CropMix = "additive",
        width: Annotated[Width, Range(1, 4096)] = 64,
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        if mix != "additive" and width % HEADS:
            raise UserError(f"Expected a multiple of {HEADS} as width for {mix}, but got {width}.")
        self.backbone, self.in_channels = backbone, backbone.in_channels
        self.keypoints, self.patch_size = keypoints, patch_size
        self.num_classes, self.mix, self.width, self.dropout = num_classes, mix, width, dropout
        self.additive = mix == "additive"
        self.register_buffer("mean", torch.zeros(backbone.width))
        self.register_buffer("std", torch.ones(backbone.width))
        self.drop = nn.Dropout(dropout)
        build = {"additive": Additive, "attention": Queries, "tokens": Tokens}[mix]
        self.mixer: nn.Module = build(backbone.width, num_classes, width)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return logits and what belongs to them for normalised patches (B, K, C, P, P)."""
        flat = patches.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            vectors = self.backbone(flat)[1]
        else:  # a backbone's features take a hundred times the memory of its images
            vectors = torch.cat([self.backbone(some)[1] for some in flat.split(AT_ONCE)])
        return self.combine(vectors.unflatten(0, patches.shape[:2]), located)

    def combine(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return the output for the crops' vectors (B, K, F), as the backbone returns them.

        The detector's scores change no logit, but get the gradient of the crops' weights.
        """
        output: HeadOutput = self.mixer(self.drop((vectors - self.mean) / self.std), located)
        return output

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Take mean and standard deviation of the vectors (N, F) of training images as unit."""
        self.mean.copy_(vectors.mean(dim=0))
        self.std.copy_(vectors.std(dim=0).clamp_min(1e-3))


class Additive(nn.Module):
    """A weighted sum of what each vector adds to each logit, and a bias."""

    def __init__(self, features: int, num_classes: int, width: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, 1))
        self.value = nn.Linear(features, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits, weights and contributions for vectors (B, K, F)."""
        scores = self.gate(vectors)[..., 0] + _gradient_of(located)
        weights = scores.softmax(dim=1)
        contributions = weights[..., None] * (vectors @ self.value.weight.T)  # (B, K, classes)
        logits = contributions.sum(dim=1) + self.value.bias
        return HeadOutput(logits, weights, contributions=contributions)


class Queries(nn.Module):
    """Learned queries that read the vectors, and where they are from."""

    def __init__(self, features: int, num_classes: int, width: int):
        super().__init__()
        self.project = nn.Linear(features, width)
        self.attention = PatchAttention(width, 1, HEADS, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits and weights for vectors (B, K, F)."""
        nothing = _gradient_of(located)
        logits, weights = self.attention(self.project(vectors), located.xy, nothing)
        return HeadOutput(logits[:, 0], weights[:, 0])


class Tokens(nn.Module):
    """A transformer layer over the vectors and where they are from, and a weighted sum."""

    def __init__(self, features: int, num_classes: int, width: int):
        super().__init__()
        self.project = nn.Linear(features, width)
        self.location = nn.Linear(3, width)
        self.layer = nn.TransformerEncoderLayer(
            width, HEADS, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.gate = nn.Linear(width, 1)
        self.value = nn.Linear(width, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits and weights for vectors (B, K, F)."""
        xy = located.xy.to(vectors.dtype)
        scale = torch.ones_like(xy[..., 0]) if located.scale is None else located.scale
        where = torch.cat([xy, scale.to(xy)[..., None].log()], dim=-1)
        tokens = self.layer(self.project(vectors) + self.location(where))
        weights = (self.gate(tokens)[..., 0] + _gradient_of(located)).softmax(dim=1)
        read = (weights[..., None] * tokens).sum(dim=1)
        return HeadOutput(self.value(read), weights)


def _gradient_of(located: Located) -> Tensor:
    """Return zeros (B, K) that pass a gradient on to the detector's scores."""
    score = located.score
    return torch.zeros_like(located.xy[..., 0]) if score is None else score - score.detach()
