"""A head that encodes each patch separately, then sums, attends to or mixes the vectors."""

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
CROPS_PER_PASS = 128  # per forward pass of a backbone; more are not faster


class CropHead(Head):
    """Classifies from crops that a backbone encodes separately.

    `additive`: logits = sum over crops of w_k V(crop_k) + b, where the weights w_k are a softmax
    over the crops of gated scores (Ilse et al. 2018, "Attention-based deep multiple instance
    learning"). A crop's contribution to a logit is an exact term of that sum. `attention`:
    learned queries read the crops (`PatchAttention`). `tokens`: a transformer layer mixes them.
    The last two also read the locations of the crops.

    Args:
        backbone: a crop -> features, of which the global vector is used.
        keypoints: number K of crops.
        patch_size: side P of a crop in samples.
        num_classes: number of classes.
        mix: `additive`, `attention` or `tokens`.
        width: width of the layer that weights crops, or dimension of a token.
        dropout: fraction of the vectors' features dropped in training.

    Raises:
        UserError: the width is not a multiple of 4 for `attention` or `tokens`.
    """

    encodes = True
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        keypoints: Keypoints,
        patch_size: PatchSize,
        num_classes: Classes = 10,
        mix: CropMix = "additive",
        width: Annotated[Width, Range(1, 4096)] = 64,
        dropout: Fraction = 0.0,
    ):
        super().__init__()
        if mix != "additive" and width % HEADS:
            raise UserError(
                f"Expected a width that is a multiple of {HEADS} for {mix}, but got {width}."
            )
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
        """Return logits, weights and contributions for normalised patches (B, K, C, P, P)."""
        flat = patches.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            vectors = self.backbone(flat)[1]
        else:  # features take a hundred times the memory of images
            vectors = torch.cat([self.backbone(batch)[1] for batch in flat.split(CROPS_PER_PASS)])
        return self.combine(vectors.unflatten(0, patches.shape[:2]), located)

    def combine(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return the output for the crops' vectors (B, K, F), as the backbone returns them.

        The detector's scores do not change the logits, but receive the gradient of the weights.
        """
        output: HeadOutput = self.mixer(self.drop((vectors - self.mean) / self.std), located)
        return output

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Set the normalisation to the mean and standard deviation of training vectors (N, F)."""
        self.mean.copy_(vectors.mean(dim=0))
        self.std.copy_(vectors.std(dim=0).clamp_min(1e-3))


class Additive(nn.Module):
    """A weighted sum of each vector's contributions to the logits, and a bias."""

    def __init__(self, features: int, num_classes: int, width: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(features, width), nn.Tanh(), nn.Linear(width, 1))
        self.value = nn.Linear(features, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits, weights and contributions for vectors (B, K, F)."""
        scores = self.gate(vectors)[..., 0] + _zeros_with_gradient(located)
        weights = scores.softmax(dim=1)
        contributions = weights[..., None] * (vectors @ self.value.weight.T)  # (B, K, classes)
        logits = contributions.sum(dim=1) + self.value.bias
        return HeadOutput(logits, weights, contributions=contributions)


class Queries(nn.Module):
    """Learned queries that attend to the vectors and their locations."""

    def __init__(self, features: int, num_classes: int, width: int):
        super().__init__()
        self.project = nn.Linear(features, width)
        self.attention = PatchAttention(width, 1, HEADS, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits and weights for vectors (B, K, F)."""
        zeros = _zeros_with_gradient(located)
        logits, weights = self.attention(self.project(vectors), located.xy, zeros)
        return HeadOutput(logits[:, 0], weights[:, 0])


class Tokens(nn.Module):
    """A transformer layer over the vectors and their locations, and a weighted sum."""

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
        location = torch.cat([xy, scale.to(xy)[..., None].log()], dim=-1)
        tokens = self.layer(self.project(vectors) + self.location(location))
        weights = (self.gate(tokens)[..., 0] + _zeros_with_gradient(located)).softmax(dim=1)
        pooled = (weights[..., None] * tokens).sum(dim=1)
        return HeadOutput(self.value(pooled), weights)


def _zeros_with_gradient(located: Located) -> Tensor:
    """Return zeros (B, K) that pass a gradient on to the detector's scores."""
    score = located.score
    return torch.zeros_like(located.xy[..., 0]) if score is None else score - score.detach()
