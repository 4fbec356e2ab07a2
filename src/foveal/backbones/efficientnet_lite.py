"""EfficientNet-Lite0: a small pretrained backbone for photographs."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

import torch.nn.functional as F
from torch import Tensor, nn

from foveal.backbones.backbone import StagedBackbone
from foveal.foundation.arguments import Range
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.ranges import Channels

# The stages of EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946, table 1). Lite0 has the same, but
# without squeeze-and-excitation, and with ReLU6 instead of swish. Each row is: expansion of the
# channels, side of the kernel, stride, output channels, number of blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
STEM, TOP = 32, 1280  # output channels of the first and the last convolution
# Local features of depths 1 to 4 are the outputs of these rows of `STAGES`, the last row of each
# resolution. Depth 5 is the output of the last convolution.
TAPS = (0, 1, 2, 4)
DEPTHS = len(TAPS) + 1
STRIDE = 32  # pixels of the image per location of the deepest features
EPS = 1e-3  # epsilon of batch normalisation, as in TensorFlow
MEAN, STD = 127 / 255, 128 / 255  # normalisation of images in [0, 1]
WEIGHTS = {"imagenet": "efficientnet-lite0-imagenet.safetensors"}  # files in the folder weights/


class EfficientNetLite(StagedBackbone):
    """EfficientNet-Lite0 with TensorFlow's padding, so that its pretrained weights can be used.

    It has 4 million parameters, and takes 0.4 billion multiply-accumulate operations for an image
    of 224x224 pixels. Normalised images of any size are padded with 0 at the right and bottom edges
    to multiples of 32 pixels. The input of every strided convolution then has even sides, for which
    TensorFlow's padding does not depend on the size.

    Args:
        in_channels: channels of the images, which must be normalised by `MEAN` and `STD`.
        weights: a name in `WEIGHTS`, which requires 3 channels; empty for random weights.
        stride: pixels of the image per location of the deepest features, 32 or 16. With 16 the last
            reduction of the resolution is omitted and the kernels that follow are dilated instead
            (Yu et al. 2017, arXiv:1705.09914): the weights are the same, the cost is twice as high.
        depth: depth, from 1, of the deepest features; layers that only deeper ones need are not
            built.

    Raises:
        UserError: an invalid stride, unknown weights, or weights for other channels.
    """

    averages = True
    normalisation = (MEAN, STD)

    def __init__(
        self,
        in_channels: Channels = 3,
        weights: str = "",
        stride: int = STRIDE,
        depth: Annotated[int, Range(1, DEPTHS)] = DEPTHS,
    ):
        super().__init__()
        if weights and weights not in WEIGHTS:
            raise unknown_name("weights of EfficientNet-Lite", weights, WEIGHTS)
        if weights and in_channels != 3:
            raise UserError(f"The weights {weights!r} are for 3 channels, but got {in_channels}.")
        if stride not in (STRIDE, STRIDE // 2):
            raise UserError(f"Expected a stride of 32 or 16 pixels, but got {stride!r}.")
        self.in_channels, self.weights, self.stride = in_channels, weights, stride
        self.depth = depth
        is_complete = depth == DEPTHS
        rows = STAGES if is_complete else STAGES[: TAPS[depth - 1] + 1]
        stage_widths = [width for _, _, _, width, _ in STAGES]
        self.stem = ConvNorm(in_channels, STEM, 3, stride=2)
        self.stages = _stages(rows, stride)
        if is_complete:
            self.top = ConvNorm(stage_widths[-1], TOP, 1)
        self.widths = [*(stage_widths[tap] for tap in TAPS), TOP][:depth]
        self.width = self.widths[-1]
        self.strides = (2, 4, 8, 16, stride)[:depth]
        # Not strict, because without pretrained weights `shipped` is empty.
        self.load_state_dict(self.shipped(), strict=False)

    def stages_of(self, depth: int) -> Sequence[nn.Module]:
        """Return the modules that compute a depth's features from those of the previous one."""
        start = TAPS[depth - 2] + 1 if depth > 1 else 0
        if depth > len(TAPS):
            return [*self.stages[start:], self.top]
        stages = self.stages[start : TAPS[depth - 1] + 1]
        return [self.stem, *stages] if depth == 1 else list(stages)

    def step(self, features: Tensor, depth: int) -> Tensor:
        """Return the features of a depth, given those of the previous depth.

        Depths 1 to 5 have 2, 4, 8, 16 and `stride` pixels of the image per location.

        Args:
            features: features of the previous depth; for depth 1 normalised images (B, C, H, W) of
                any size.
            depth: depth of the returned features.
        """
        if depth == 1:
            height, width = features.shape[-2:]
            features = F.pad(features, (0, -width % STRIDE, 0, -height % STRIDE))
        for stage in self.stages_of(depth):
            features = stage(features)
        return features

    def whole(self, deepest: Tensor) -> Tensor:
        """Return the mean (B, width) of the deepest features."""
        return deepest.mean(dim=(-2, -1))

    def cut(self, depth: int) -> Self:
        """Return a new backbone with the same settings but only the stages up to a depth."""
        self._check_depth(depth)
        return type(self)(self.in_channels, self.weights, self.stride, depth)

    def shipped(self) -> dict[str, Tensor]:
        """Return the pretrained weights of the layers that are built, by name in the state dict.

        It is empty if the initial weights are random.
        """
        if not self.weights:
            return {}
        weights = _read_weights(WEIGHTS[self.weights])
        if self.depth == DEPTHS:
            return weights
        return {name: weights[name] for name in self.state_dict()}


def _stages(rows: Sequence[tuple[int, int, int, int, int]], max_stride: int) -> nn.ModuleList:
    """Return stages that reduce the resolution by at most `max_stride`.

    A stride that would exceed it is replaced by 1, and later kernels are dilated by that stride.

    Args:
        rows: rows of `STAGES`.
        max_stride: maximum pixels of the image per location of the features.
    """
    stages, channels, total_stride, dilation = [], STEM, 2, 1
    for expansion, side, stage_stride, width, blocks in rows:
        layers = []
        for index in range(blocks):
            nominal_stride = stage_stride if index == 0 else 1
            stride = nominal_stride if total_stride * nominal_stride <= max_stride else 1
            layers.append(Block(channels, width, expansion, side, stride, dilation))
            total_stride *= stride
            dilation *= nominal_stride // stride
            channels = width
        stages.append(nn.Sequential(*layers))
    return nn.ModuleList(stages)


@cache
def _read_weights(file: str) -> dict[str, Tensor]:
    """Return the weights of a file in the folder weights/.

    The file is read once, and all callers share the tensors, so they must not modify them.
    """
    from safetensors.torch import load_file

    return load_file(Path(str(resources.files("foveal.backbones"))) / "weights" / file)


class ConvNorm(nn.Module):
    """A convolution with TensorFlow's `SAME` padding, batch normalisation and optional ReLU6.

    The padding is that of inputs with even sides. With a stride of 2 it is one pixel narrower at
    the left and top edges than at the right and bottom edges.

    Args:
        in_channels: channels of the input.
        width: channels of the output.
        side: side of the kernel.
        stride: 1, or 2 to halve the resolution.
        dilation: distance between the values that the kernel reads.
        depthwise: whether each channel is filtered separately.
        active: whether a ReLU6 follows.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        side: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        depthwise: bool = False,
        active: bool = True,
    ):
        super().__init__()
        total_padding = (side - 1) * dilation - (stride - 1)
        before = total_padding // 2
        after = total_padding - before
        self.uneven_padding = (before, after, before, after) if before != after else None
        self.conv = nn.Conv2d(
            in_channels,
            width,
            side,
            stride=stride,
            padding=0 if self.uneven_padding else before,
            dilation=dilation,
            groups=in_channels if depthwise else 1,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(width, eps=EPS, momentum=0.01)
        self.active = active
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, width, h, w) for (B, C, h, w); a stride of 2 halves h and w."""
        if self.uneven_padding:
            features = F.pad(features, self.uneven_padding)
        features = self.norm(self.conv(features))
        return F.relu6(features) if self.active else features


class Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018).

    It expands the channels, filters each one separately, and projects them to the output channels.
    The input is added if it has the same shape as the output.
    """

    def __init__(
        self, in_channels: int, width: int, expansion: int, side: int, stride: int, dilation: int
    ):
        super().__init__()
        middle = in_channels * expansion
        self.expand: nn.Module = (
            ConvNorm(in_channels, middle, 1) if expansion > 1 else nn.Identity()
        )
        self.filter = ConvNorm(
            middle, middle, side, stride=stride, dilation=dilation, depthwise=True
        )
        self.project = ConvNorm(middle, width, 1, active=False)
        self.residual = stride == 1 and in_channels == width

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, width, h, w) for (B, C, h, w); a stride of 2 halves h and w."""
        projected = self.project(self.filter(self.expand(features)))
        return features + projected if self.residual else projected
