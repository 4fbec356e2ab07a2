"""The self-attention net: local self-attention instead of convolutions."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones.vgg import halve
from foveal.backbones.whitening import Whiten, WhiteningConv
from foveal.explanation import Explanation
from foveal.foundation.arguments import Length, OneOf, Range
from foveal.foundation.errors import UserError
from foveal.foundation.ranges import Channels, Classes, Widths
from foveal.images import View
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs
from foveal.models.local_attention import (
    GROUP_SIZE,
    PairwiseAttention,
    PatchwiseAttention,
    received_attention,
)

KINDS: dict[str, type[PairwiseAttention] | type[PatchwiseAttention]] = {
    "pairwise": PairwiseAttention,
    "patchwise": PatchwiseAttention,
}
# SAN10 of Zhao et al. 2020, table 2: blocks, channels and windows of its five stages.
SAN10 = {"blocks": (2, 1, 2, 4, 1), "widths": (64, 256, 512, 1024, 2048), "sides": (3, 7, 7, 7, 7)}


class SANet(ImageModel):
    """A residual net of local self-attention without spatial filters (Zhao et al. 2020).

    The maps of an explanation are the attention that each location receives in the last block of
    each stage, summed over the windows around it: attention relates neighbours, and the logits are
    computed from the mean over all locations.

    Args:
        kind: `pairwise` or `patchwise` attention.
        blocks: self-attention blocks of each stage; SAN10 has (2, 1, 2, 4, 1).
        widths: channels of each stage, multiples of 32; SAN10 has (64, 256, 512, 1024, 2048).
        sides: side of each stage's windows in locations, odd; SAN10 has (3, 7, 7, 7, 7).
        pool_first: halve the resolution before the first stage, as in the paper at 224x224
            pixels; it is always halved before the other stages.
        whiten: side in pixels of the patches that a first layer whitens (`WhiteningConv`); 0, as in
            the paper, for a first layer on single pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        inputs: the images that the model expects.

    Raises:
        UserError: an argument is invalid.

    Example:
        >>> san10 = SANet("patchwise", **SAN10, pool_first=True, num_classes=1000)
        >>> round(sum(p.numel() for p in san10.parameters()) / 1e6, 1)
        11.8
    """

    name = "san"
    evidence_kind = "maps"

    def __init__(
        self,
        kind: Annotated[str, OneOf(tuple(KINDS))] = "patchwise",
        blocks: Annotated[Sequence[Annotated[int, Range(1, 64)]], Length(1, 16)] = (1, 2, 3),
        widths: Widths = (64, 192, 384),
        sides: Sequence[Annotated[int, Range(1, 31)]] = (3, 5, 5),
        pool_first: bool = False,
        whiten: Whiten = 0,
        in_channels: Channels = 3,
        num_classes: Classes = 10,
        inputs: Inputs = Inputs(),
    ):
        super().__init__(in_channels, num_classes, inputs)
        _check(blocks, widths, sides)
        self.pool_first = pool_first
        self.whitening: nn.Module = nn.Identity()
        channels = in_channels
        if whiten:
            whitening = WhiteningConv(in_channels, whiten)
            self.whitening = nn.Sequential(whitening, nn.ReLU(inplace=True))
            channels = whitening.out_channels
        self.first = _linear(channels, widths[0])
        stages = []
        channels = widths[0]
        for count, width, side in zip(blocks, widths, sides, strict=True):
            layers = [Block(kind, width, side) for _ in range(count)]
            stages.append(Stage(nn.Conv2d(channels, width, 1, bias=False), layers))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(channels, num_classes)

    def observe(self, view: View) -> Explanation:
        """Classify B images, with a map of each stage at their size."""
        images = view.whole()
        features = self.first(self.whitening(images))  # (B, widths[0], H, W)
        maps = []
        for number, stage in enumerate(self.stages):
            if number or self.pool_first:
                features = halve(features)
            features, attention = stage(features)
            maps.append(F.interpolate(attention[:, None], view.size, mode="nearest-exact"))
        logits = self.head(features.mean(dim=(-2, -1)))
        return Explanation(images, logits, maps=torch.cat(maps, dim=1))


class Stage(nn.Module):
    """A change of width, then blocks at one resolution."""

    def __init__(self, widen: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.widen = widen
        self.blocks = nn.ModuleList(blocks)
        last: Block = blocks[-1]  # type: ignore[assignment]
        self.norm = nn.BatchNorm2d(last.width)
        self.side = last.attention.side

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, width, H, W) and the last block's attention to each location (B, H, W)."""
        features = self.widen(features)
        weights = features  # always replaced: a stage has at least one block
        for block in self.blocks:
            features, weights = block(features)
        return F.relu(self.norm(features)), received_attention(weights.detach(), self.side)


class Block(nn.Module):
    """The paper's bottleneck: self-attention on a quarter of the channels, added to its input."""

    def __init__(self, kind: str, width: int, side: int):
        super().__init__()
        self.width = width
        inner = width // 4
        self.before = nn.BatchNorm2d(width)
        self.attention = KINDS[kind](width, inner, max(width // 16, 4), side)
        self.after = nn.BatchNorm2d(inner)
        self.out = nn.Conv2d(inner, width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, width, H, W) and the attention's weights."""
        attended, weights = self.attention(F.relu(self.before(features)))
        return features + self.out(F.relu(self.after(attended))), weights


def _linear(in_channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _check(blocks: Sequence[int], widths: Sequence[int], sides: Sequence[int]) -> None:
    if not len(blocks) == len(widths) == len(sides):
        raise UserError(
            "Expected as many blocks as widths and sides, but got "
            f"{list(blocks)}, {list(widths)} and {list(sides)}."
        )
    for width in widths:
        if width % (4 * GROUP_SIZE):
            raise UserError(
                f"Expected widths that are multiples of {4 * GROUP_SIZE}, but got {width}."
            )
    for side in sides:
        if side % 2 == 0:
            raise UserError(f"Expected odd sides of windows, but got {side}.")
