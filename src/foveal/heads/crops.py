"""A head that encodes each crop with a backbone, then combines the vectors into logits.

A crop is a patch that is large enough for a backbone; a mix is the way in which the crops' vectors
are combined: `additive`, `attention` or `tokens`.
"""

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
HEADS = 4  # attention heads of the mixes `attention` and `tokens`
CROPS_PER_PASS = 128  # crops per forward pass of the backbone; larger batches are not faster
MIN_STD = 1e-3  # so that features that are constant in training are not divided by 0


class CropHead(Head):
    """Classifies from crops, each of which a backbone encodes separately as one vector v_k.

    The vectors are combined in one of three ways:

    - `additive`: logits = sum over k of w_k V v_k, plus a bias, with a learned matrix V. The
      weights w_k are the softmax over the crops of scores that a small net computes from each
      vector (after Ilse et al. 2018, "Attention-based deep multiple instance learning"). Each
      term of this sum is exactly what its crop contributes to the logits.
    - `attention`: learned queries attend to the vectors and their locations (`PatchAttention`).
    - `tokens`: a transformer layer mixes the vectors and their locations.

    Args:
        backbone: turns a crop into features, of which the head uses only the global vector.
        keypoints: number K of crops.
        patch_size: side P of a crop in samples.
        num_classes: number of classes.
        mix: `additive`, `attention` or `tokens`.
        width: for `additive`, width of the hidden layer that scores the crops; otherwise the
            dimension of a token.
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
        mixers = {"additive": AdditiveMixer, "attention": AttentionMixer, "tokens": TokenMixer}
        self.mixer: nn.Module = mixers[mix](backbone.width, num_classes, width)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return logits, weights and contributions for normalised patches (B, K, C, P, P)."""
        flat = patches.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled() or torch.compiler.is_exporting():
            vectors = self.backbone(flat)[1]
        else:  # in batches, because features take a hundred times the memory of the crops
            vectors = torch.cat([self.backbone(batch)[1] for batch in flat.split(CROPS_PER_PASS)])
        return self.combine(vectors.unflatten(0, patches.shape[:2]), located)

    def combine(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return the head's output for the crops' vectors.

        The detector's scores do not change the logits. They receive the gradient of the crops'
        weights, so that training raises the scores of crops that deserve more weight.

        Args:
            vectors: (B, K, F), the backbone's global vector of each crop, not normalised.
            located: the locations of the crops and the detector's other outputs.
        """
        output: HeadOutput = self.mixer(self.drop((vectors - self.mean) / self.std), located)
        return output

    @torch.no_grad()
    def measure(self, vectors: Tensor) -> None:
        """Normalise vectors by the mean and standard deviation of the training vectors (N, F).

        The head's buffers `mean` and `std` are overwritten.
        """
        self.mean.copy_(vectors.mean(dim=0))
        self.std.copy_(vectors.std(dim=0).clamp_min(MIN_STD))


class AdditiveMixer(nn.Module):
    """Logits as a weighted sum of one term per vector, plus a bias.

    Args:
        in_features: dimension F of the vectors.
        num_classes: number of classes.
        width: width of the hidden layer that scores the vectors.
    """

    def __init__(self, in_features: int, num_classes: int, width: int):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(in_features, width), nn.Tanh(), nn.Linear(width, 1))
        self.value = nn.Linear(in_features, num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits, weights and contributions for vectors (B, K, F)."""
        scores = self.gate(vectors)[..., 0] + _zeros_with_gradient(located)
        weights = scores.softmax(dim=1)
        contributions = weights[..., None] * (vectors @ self.value.weight.T)  # (B, K, classes)
        logits = contributions.sum(dim=1) + self.value.bias
        return HeadOutput(logits, weights, contributions=contributions)


class AttentionMixer(nn.Module):
    """Learned queries that attend to the vectors and their locations.

    Args:
        in_features: dimension F of the vectors.
        num_classes: number of classes.
        width: dimension of a token, a multiple of `HEADS`.
    """

    def __init__(self, in_features: int, num_classes: int, width: int):
        super().__init__()
        self.project = nn.Linear(in_features, width)
        self.attention = PatchAttention(width, tasks=1, heads=HEADS, num_classes=num_classes)

    def forward(self, vectors: Tensor, located: Located) -> HeadOutput:
        """Return logits and weights for vectors (B, K, F)."""
        zeros = _zeros_with_gradient(located)
        logits, weights = self.attention(self.project(vectors), located.xy, zeros)
        return HeadOutput(logits[:, 0], weights[:, 0])


class TokenMixer(nn.Module):
    """A transformer layer over the vectors and their locations, then a weighted mean of the tokens.

    The arguments are those of `AttentionMixer`.
    """

    def __init__(self, in_features: int, num_classes: int, width: int):
        super().__init__()
        self.project = nn.Linear(in_features, width)
        self.location = nn.Linear(3, width)  # reads x, y and the logarithm of the scale
        self.layer = nn.TransformerEncoderLayer(
            width,
            HEADS,
            dim_feedforward=2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
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
    """Return zeros (B, K), whose gradient is passed on to the detector's scores, if there are any.

    Adding them to other scores changes no value.
    """
    score = located.score
    return torch.zeros_like(located.xy[..., 0]) if score is None else score - score.detach()
