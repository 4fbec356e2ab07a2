"""The classifier of a focus model: patches and their places -> logits."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from foveal.arguments import Length, OneOf, checked
from foveal.errors import UserError
from foveal.ranges import Width

MIXES = ("concat", "attention")
ENCODERS = ("mlp", "conv")
Mix = Annotated[str, OneOf(MIXES)]
Encoder = Annotated[str, OneOf(ENCODERS)]
Hidden = Annotated[Sequence[Width], Length(0, 64)]
HEADS = 4  # of the attention between tokens


class PatchClassifier(nn.Module):
    """Classifies from K patches and their positions; it never sees the image.

    Each patch becomes a token, its position is added, the tokens are mixed and read out.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in pixels.
        in_channels: channels C.
        num_classes: number of classes.
        width: numbers in a token.
        mix: `concat` reads the tokens in their order, so each keypoint has a role of its own;
            `attention` reads them as a set, through two transformer layers.
        encoder: `mlp` for a few pixels, `conv` (two convolutions, the second of stride 2).
        dropout: share of features dropped in training.
        context: numbers in a vector that is read beside the tokens; 0 for none.
        hidden: widths of the layers between the tokens and the logits.

    Raises:
        UserError: an argument is not what is listed here, or tokens for `attention` have a width
            that is no multiple of 4.
    """

    @checked
    def __init__(
        self,
        keypoints: int,
        patch_size: int,
        in_channels: int,
        num_classes: int,
        width: int = 128,
        mix: Mix = "concat",
        encoder: Encoder = "mlp",
        dropout: float = 0.0,
        context: int = 0,
        hidden: Hidden = (128,),
    ):
        super().__init__()
        if mix == "attention" and width % HEADS:
            raise UserError(
                f"Expected a multiple of {HEADS} as width for mix: attention, but got {width}."
            )
        encode = _mlp if encoder == "mlp" else _conv
        self.encode = encode(in_channels, patch_size, width)
        self.place = nn.Sequential(nn.Linear(2, 64), nn.GELU(), nn.Linear(64, width))
        self.drop = nn.Dropout(dropout)
        self.mix: nn.Module = nn.Identity()
        if mix == "attention":
            self.mix = nn.Sequential(
                *(
                    nn.TransformerEncoderLayer(
                        width, HEADS, 2 * width, dropout, "gelu", batch_first=True, norm_first=True
                    )
                    for _ in range(2)
                )
            )
        self.ordered = mix == "concat"
        read = keypoints * width if self.ordered else width
        self.head = _head(read + context, hidden, dropout, num_classes)

    def forward(self, patches: Tensor, keypoints: Tensor, context: Tensor | None = None) -> Tensor:
        """Return logits (B, classes) for patches (B, K, C, P, P) at keypoints (B, K, 2).

        Args:
            patches: whole pixels or samples.
            keypoints: in grid units.
            context: (B, `context`), where the classifier was made for it.
        """
        tokens = self.encode(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])  # (B, K, D)
        tokens = self.mix(self.drop(tokens + self.place(keypoints.to(patches.dtype))))
        read = tokens.flatten(1) if self.ordered else tokens.mean(dim=1)
        return self.head(read if context is None else torch.cat([read, context], dim=1))


def _mlp(channels: int, patch_size: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * patch_size**2, width),
        nn.GELU(),
        nn.Linear(width, width),
    )


def _conv(channels: int, patch_size: int, width: int) -> nn.Module:
    side = (patch_size + 1) // 2
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


def _head(width: int, hidden: Sequence[int], dropout: float, num_classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.LayerNorm(width)]
    for out in hidden:
        layers += [nn.Linear(width, out), nn.GELU(), nn.Dropout(dropout)]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
