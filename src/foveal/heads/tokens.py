"""A head that turns each patch and its location into a token, and classifies the tokens."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from foveal.detectors import Located
from foveal.foundation.arguments import Length, OneOf, Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Channels, Classes, Fraction, Keypoints, PatchSize, Width
from foveal.heads.head import Head, HeadOutput

MIXES = ("concat", "attention")
ENCODERS = ("mlp", "conv")
Mix = Annotated[str, OneOf(MIXES)]
Encoder = Annotated[str, OneOf(ENCODERS)]
Hidden = Annotated[Sequence[Width], Length(0, 64)]
HEADS = 4  # attention heads of each transformer layer
TRANSFORMER_LAYERS = 2


class TokenHead(Head):
    """Classifies from K patches and their locations.

    Each patch is encoded as a vector, to which an encoding of its location is added: its token.
    The tokens are then mixed, that is combined into one vector, which is classified.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C.
        num_classes: number of classes.
        width: dimension of a token.
        mix: `concat` concatenates the tokens in the order of the keypoints, so that each keypoint
            has its own weights; `attention` passes them through two transformer layers and takes
            their mean, so that their order does not matter.
        encoder: `mlp`, for patches of a few pixels, or `conv` (two convolutions, the second of
            stride 2).
        dropout: fraction of features dropped in training.
        context: dimension of the detector's context vector (`Located.context`), which is read in
            addition to the tokens; 0 for none.
        hidden: widths of the layers between the tokens and the logits.

    Raises:
        UserError: an argument is invalid, or the width for `attention` is not a multiple of 4.
    """

    def __init__(
        self,
        keypoints: Keypoints,
        patch_size: PatchSize,
        in_channels: Channels = 1,
        num_classes: Classes = 10,
        width: Width = 128,
        mix: Mix = "concat",
        encoder: Encoder = "mlp",
        dropout: Fraction = 0.0,
        context: Annotated[int, Range(0, 2**24)] = 0,
        hidden: Hidden = (128,),
    ):
        super().__init__()
        self.keypoints, self.patch_size, self.in_channels = keypoints, patch_size, in_channels
        self.num_classes, self.width, self.encoder = num_classes, width, encoder
        self.mix, self.dropout, self.context = mix, dropout, context
        self.hidden = list(hidden)
        if mix == "attention" and width % HEADS:
            raise UserError(
                f"Expected a width that is a multiple of {HEADS} for attention, but got {width}."
            )
        encode = _mlp if encoder == "mlp" else _conv
        self.encode = encode(in_channels, patch_size, width)
        self.location = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, width))
        self.drop = nn.Dropout(dropout)
        self.mixer: nn.Module = nn.Identity()
        if mix == "attention":
            self.mixer = nn.Sequential(
                *(
                    nn.TransformerEncoderLayer(
                        width, HEADS, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
                    )
                    for _ in range(TRANSFORMER_LAYERS)
                )
            )
        mixed_width = keypoints * width if mix == "concat" else width
        self.classify = _classifier(mixed_width + context, hidden, dropout, num_classes)

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return logits (B, classes) for normalised patches (B, K, C, P, P)."""
        tokens = self.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, D)
        tokens = self.mixer(self.drop(tokens + self.location(located.xy.to(patches.dtype))))
        features = tokens.flatten(1) if self.mix == "concat" else tokens.mean(dim=1)
        if self.context:
            assert located.context is not None
            features = torch.cat([features, located.context], dim=1)
        return HeadOutput(self.classify(features))


def _mlp(channels: int, patch_size: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * patch_size**2, width),
        nn.GELU(),
        nn.Linear(width, width),
    )


def _conv(channels: int, patch_size: int, width: int) -> nn.Module:
    side = (patch_size + 1) // 2  # of the features after the convolution of stride 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 48, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(48 * side**2, width),
    )


def _classifier(width: int, hidden: Sequence[int], dropout: float, num_classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.LayerNorm(width)]
    for hidden_width in hidden:
        layers += [nn.Linear(width, hidden_width), nn.GELU(), nn.Dropout(dropout)]
        width = hidden_width
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
