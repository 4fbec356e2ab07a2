"""A VGG net for small images: stages of 3x3 convolutions with pooling between them."""

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones.backbone import StagedBackbone
from foveal.backbones.whitening import Whiten, WhiteningConv
from foveal.foundation.arguments import Length, OneOf, Range
from foveal.foundation.ranges import Channels, Widths

# Output channels of the net of Jetley et al. 2018, section 4. The first two poolings of VGG-16 are
# moved to later layers, so that the features that attention weights have a high resolution.
PAPER = ((64, 64, 128, 128, 256, 256, 256), (512, 512, 512), (512, 512, 512), (512,), (512,))
TAPS = ("before", "after")  # a stage's pooling: where its local features are taken
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


class VGGBackbone(StagedBackbone):
    """Stages of 3x3 convolutions, each with one map of local features.

    The default is the net of Jetley et al. 2018. Every convolution is followed by batch
    normalisation. Initially its first filters copy the input channels (partial identity: Jordan
    2024, arXiv:2404.00498, section 3.1).

    Args:
        in_channels: channels of the images.
        stages: output channels of each convolution, stage by stage. Each stage ends in 2x2 max
            pooling except the last, whose maximum over all locations is the global vector.
        tap: whether local features are taken `before` or `after` a stage's pooling.
        hidden: width of a linear layer that then transforms the global vector, or 0 for none.
        whiten: side in pixels of the patches that a first layer whitens (`WhiteningConv`), or 0 for
            no such layer.
        activation: `relu` or `gelu`.

    Raises:
        UserError: an argument is invalid.
    """

    def __init__(
        self,
        in_channels: Channels = 3,
        stages: Annotated[Sequence[Widths], Length(1, 16)] = PAPER,
        tap: Annotated[str, OneOf(TAPS)] = "before",
        hidden: Annotated[int, Range(0, 16_384)] = 0,
        whiten: Whiten = 0,
        activation: Annotated[str, OneOf(tuple(ACTIVATIONS))] = "relu",
    ):
        super().__init__()
        self.in_channels = in_channels
        self.stages = [list(stage) for stage in stages]
        self.tap, self.hidden, self.whiten, self.activation = tap, hidden, whiten, activation
        self.widths = [stage[-1] for stage in stages]
        self.width = hidden or self.widths[-1]
        self.strides = [None] * len(self.widths)
        channels = in_channels
        self.first: nn.Module = nn.Identity()
        if whiten:
            whitening = WhiteningConv(in_channels, whiten)
            self.first = nn.Sequential(whitening, ACTIVATIONS[activation]())
            channels = whitening.out_channels
        blocks = []
        for number, stage in enumerate(self.stages, start=1):
            is_last_stage = number == len(self.stages)
            # With `before`, `step` pools instead, at the start of the next stage.
            has_pooling = [False] * (len(stage) - 1) + [tap == "after" and not is_last_stage]
            layers = []
            for width, pool in zip(stage, has_pooling, strict=True):
                layers.append(ConvBlock(channels, width, pool, ACTIVATIONS[activation]()))
                channels = width
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.neck: nn.Module = nn.Identity()
        if hidden:
            self.neck = nn.Sequential(nn.Linear(channels, hidden), ACTIVATIONS[activation]())

    def stages_of(self, depth: int) -> Sequence[nn.Module]:
        """Return the modules that compute the features of a depth, for the last with the neck."""
        first = [self.first] if depth == 1 else []
        last = [self.neck] if depth == len(self.blocks) else []
        return [*first, self.blocks[depth - 1], *last]

    def step(self, features: Tensor, depth: int) -> Tensor:
        """Return the features (B, widths[depth - 1], h, w) of a depth, given the previous ones."""
        if depth == 1:
            features = self.first(features)
        elif self.tap == "before":
            features = halve(features)
        return self.blocks[depth - 1](features)

    def whole(self, deepest: Tensor) -> Tensor:
        """Return the global vector (B, width): the maxima over locations, through the neck."""
        return self.neck(deepest.amax(dim=(-2, -1)))


class ConvBlock(nn.Module):
    """A 3x3 convolution, optional pooling, batch normalisation and activation.

    Pooling precedes the normalisation, which is then four times cheaper. The normalisation has no
    learned scale: the next convolution can learn the same, and with large learning rates a learned
    scale can diverge (Page 2019, "How to train your ResNet").

    Args:
        in_channels: channels of the input.
        width: channels of the output.
        pool: whether 2x2 max pooling follows the convolution.
        activation: the activation.
    """

    def __init__(self, in_channels: int, width: int, pool: bool, activation: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        nn.init.dirac_(self.conv.weight.data[:in_channels])
        self.pool = pool
        self.norm = nn.BatchNorm2d(width)
        self.norm.weight.requires_grad_(False)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, width, h, w) for (B, C, h, w); pooling halves h and w."""
        features = self.conv(features)
        return self.activation(self.norm(halve(features) if self.pool else features))


def halve(features: Tensor) -> Tensor:
    """Return the maxima (B, C, h // 2, w // 2) of 2x2 locations; a side of 1 stays 1."""
    height, width = features.shape[-2:]
    return F.max_pool2d(features, (min(2, height), min(2, width)))
