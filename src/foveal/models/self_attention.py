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
# Arguments of `SANet` for SAN10, the smallest net of Zhao et al. 2020 (table 2).
SAN10 = {"blocks": (2, 1, 2, 4, 1), "widths": (64, 256, 512, 1024, 2048), "sides": (3, 7, 7, 7, 7)}


class SANet(ImageModel):
    """A residual net of local self-attention without spatial filters (Zhao et al. 2020).

    An explanation has one map per stage: the attention that each location receives in the stage's
    last block, summed over the windows that contain it. A map does not show how much a location
    counts for the decision, because attention only relates neighbours, and the logits are computed
    from the mean over all locations.

    Args:
        kind: `pairwise` or `patchwise` attention.
        blocks: number of self-attention blocks of each stage; SAN10 has (2, 1, 2, 4, 1).
        widths: channels of each stage, multiples of 32; SAN10 has (64, 256, 512, 1024, 2048).
        sides: side of each stage's windows in locations, odd; SAN10 has (3, 7, 7, 7, 7).
        pool_first: whether the resolution is halved before the first stage, as in the paper for
            224x224 pixels. It is always halved before the other stages.
        whiten: side in pixels of the patches that a first layer whitens (`WhiteningConv`). With 0,
            as in the paper, the first layer reads single pixels instead.
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
        _check_stages(blocks, widths, sides)
        self.pool_first = pool_first
        self.whitening: nn.Module = nn.Identity()
        channels = in_channels
        if whiten:
            whitening = WhiteningConv(in_channels, whiten)
            self.whitening = nn.Sequential(whitening, nn.ReLU(inplace=True))
            channels = whitening.out_channels
        self.first = _pointwise(channels, widths[0])
        stages = []
        channels = widths[0]
        for block_count, width, side in zip(blocks, widths, sides, strict=True):
            layers = [Block(kind, width, side) for _ in range(block_count)]
            stages.append(Stage(nn.Conv2d(channels, width, 1, bias=False), layers))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(channels, num_classes)

    def observe(self, view: View) -> Explanation:
        """Classify B images from all of their pixels, and return one map per stage.

        The maps are resized to the size of the images.
        """
        images = view.whole()
        features = self.first(self.whitening(images))  # (B, widths[0], H, W)
        maps = []
        for index, stage in enumerate(self.stages):
            if index > 0 or self.pool_first:
                features = halve(features)
            features, attention = stage(features)
            maps.append(F.interpolate(attention[:, None], view.size, mode="nearest-exact"))
        logits = self.head(features.mean(dim=(-2, -1)))
        return Explanation(images, logits, maps=torch.cat(maps, dim=1))


class Stage(nn.Module):
    """A layer that changes the number of channels, then blocks at one resolution.

    Args:
        widen: that layer.
        blocks: at least one `Block`.
    """

    def __init__(self, widen: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.widen = widen
        self.blocks = nn.ModuleList(blocks)
        last_block: Block = blocks[-1]  # type: ignore[assignment]
        self.norm = nn.BatchNorm2d(last_block.width)
        self.side = last_block.attention.side

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, width, H, W), and the attention that each location receives.

        The attention (B, H, W) is that of the last block, without a gradient.
        """
        features = self.widen(features)
        weights = features  # for the type checker: the loop replaces it, since there is a block
        for block in self.blocks:
            features, weights = block(features)
        return F.relu(self.norm(features)), received_attention(weights.detach(), self.side)


class Block(nn.Module):
    """The paper's bottleneck block: self-attention on a quarter of the channels.

    The result is added to the input. The arguments are those of `SANet`, for one stage.
    """

    def __init__(self, kind: str, width: int, side: int):
        super().__init__()
        self.width = width
        inner = width // 4
        self.before = nn.BatchNorm2d(width)
        relation = max(width // 16, 4)
        self.attention = KINDS[kind](width, inner, relation, side)
        self.after = nn.BatchNorm2d(inner)
        self.out = nn.Conv2d(inner, width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, width, H, W), and the weights (B, side * side, groups, H, W)."""
        attended, weights = self.attention(F.relu(self.before(features)))
        return features + self.out(F.relu(self.after(attended))), weights


def _pointwise(in_channels: int, width: int) -> nn.Module:
    """Return a 1x1 convolution without a bias, with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _check_stages(blocks: Sequence[int], widths: Sequence[int], sides: Sequence[int]) -> None:
    """Raise UserError unless there is one valid value of each argument per stage."""
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
