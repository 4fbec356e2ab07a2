"""Presets: functions that build focus models of a certain design from plain arguments.

A focus model classifies an image from a few small patches and their locations only. A detector
chooses the locations, and a head computes the logits. A model is strict if its detector reads no
more of the image than counts as evidence, so that the locations cannot reveal anything else.
"""

from collections.abc import Sequence
from typing import Annotated

from foveal.backbones import Backbone
from foveal.detectors import (
    CropDetector,
    Detector,
    GlimpseDetector,
    HighResDetector,
    PublishedDetector,
    ZoomDetector,
)
from foveal.detectors.crops import Counts, Scales
from foveal.detectors.published import KINDS
from foveal.detectors.score_map import CELL
from foveal.foundation.arguments import Length, OneOf, Range, check_agreement, checked
from foveal.foundation.ranges import (
    Channels,
    Classes,
    Fraction,
    Keypoints,
    PatchSize,
    Positive,
    Width,
    Widths,
)
from foveal.heads import AttentionHead, CropHead, Head, PublishedHead, TokenHead
from foveal.heads.crops import CropMix
from foveal.heads.tokens import Encoder, Hidden, Mix
from foveal.models.focus import FocusNet
from foveal.models.inputs import Inputs


@checked
def focus(
    detector: Detector,
    patch_size: PatchSize = 5,
    in_channels: Channels = 1,
    num_classes: Classes = 10,
    width: Width = 128,
    mix: Mix = "concat",
    encoder: Encoder = "mlp",
    dropout: Fraction = 0.0,
    jitter_px: Annotated[float, Range(0, 10_000)] = 0.0,
    hidden: Hidden = (128,),
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return a focus model that reads its patches as tokens.

    Args:
        detector: chooses the locations of patches.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        width: dimension of a patch's token.
        mix: how the tokens are combined, `concat` or `attention`; see `TokenHead`.
        encoder: how a patch is encoded, `mlp` or `conv`.
        dropout: fraction of features dropped in training.
        jitter_px: standard deviation in pixels of the noise on keypoints in training.
        hidden: widths of the layers between the patches' tokens and the logits.
        inputs: description of the images that the model expects.

    Example:
        >>> import torch
        >>> from foveal.detectors import Harris
        >>> model = focus(Harris(keypoints=3), patch_size=5)
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 10)
    """
    sizes = (detector.keypoints, patch_size, in_channels, num_classes)
    head = TokenHead(*sizes, width, mix, encoder, dropout, context=detector.context, hidden=hidden)
    return FocusNet(detector, head, patch_size, jitter_px, inputs)


@checked
def zoom(
    keypoints: Keypoints = 3,
    patch_size: PatchSize = 5,
    in_channels: Channels = 1,
    num_classes: Classes = 10,
    min_scale: Positive = 1.0,
    max_scale: Positive = 3.0,
    widths: Widths = (16, 24),
    width: Width = 128,
    mix: Mix = "concat",
    encoder: Encoder = "mlp",
    dropout: Fraction = 0.0,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return a focus model that learns a location and a scale for each patch.

    The head reads the patches and their locations, but not their scales.

    Args:
        keypoints: number K of patches.
        patch_size: side P of a patch in samples.
        in_channels: channels of the images.
        num_classes: number of classes.
        min_scale: minimum spacing of the samples in pixels.
        max_scale: maximum spacing of the samples; reduced in images too small for such a patch.
        widths: output channels of the detector's convolutions, each of stride 2.
        width: dimension of a patch's token.
        mix: how the tokens are combined, `concat` or `attention`; see `TokenHead`.
        encoder: how a patch is encoded, `mlp` or `conv`.
        dropout: fraction of features dropped in training.
        inputs: description of the images that the model expects.
    """
    detector = ZoomDetector(keypoints, patch_size, in_channels, min_scale, max_scale, widths)
    # These are the arguments of `focus` from `patch_size` to `dropout`, in its order.
    options = (patch_size, in_channels, num_classes, width, mix, encoder, dropout)
    return focus(detector, *options, inputs=inputs)


@checked
def glimpse(
    backbone: Backbone,
    shrink: Annotated[float, Range(1, 1024)] = 2,
    depth: int = 2,
    keypoints: Keypoints = 3,
    patch_size: PatchSize = 5,
    num_classes: Classes = 10,
    width: Width = 128,
    mix: Mix = "concat",
    encoder: Encoder = "mlp",
    dropout: Fraction = 0.0,
    grid: Annotated[int, Range(1, 64)] = 1,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return the strict focus model, which reads only a thumbnail and patches chosen from it.

    Args:
        backbone: turns the thumbnail into local features and a global vector.
        shrink: each pixel of the thumbnail is the mean of a square of shrink x shrink pixels.
        depth: stage of the backbone, counted from 1, whose features determine the keypoints.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        num_classes: number of classes.
        width: dimension of a patch's token.
        mix: how the tokens are combined, `concat` or `attention`; see `TokenHead`.
        encoder: how a patch is encoded, `mlp` or `conv`.
        dropout: fraction of features dropped in training.
        grid: the head also reads the thumbnail's features in grid x grid cells (`GlimpseDetector`).
        inputs: description of the images that the model expects.

    Example:
        >>> import torch
        >>> from foveal.backbones import VGGBackbone
        >>> explanation = glimpse(VGGBackbone(1, [[8], [16]]), 4).explain(torch.rand(1, 1, 28, 28))
        >>> tuple(explanation.thumbnail.shape), tuple(explanation.patches.shape)
        ((1, 1, 7, 7), (1, 3, 1, 5, 5))
    """
    detector = GlimpseDetector(backbone, shrink, depth, keypoints, grid)
    options = (patch_size, backbone.in_channels, num_classes, width, mix, encoder, dropout)
    return focus(detector, *options, inputs=inputs)


@checked
def high_res(
    shrink: Annotated[int, Range(1, 1024)] = 8,
    keypoints: Keypoints = 20,
    patch_size: PatchSize = 50,
    in_channels: Channels = 1,
    num_classes: Classes = 10,
    tasks: Annotated[Sequence[str], Length(1, 64)] = ("class",),
    width: Width = 128,
    heads: Annotated[int, Range(1, 64)] = 8,
    detector_widths: Annotated[Widths, Length(2, 64)] = (8, 16, 24),
    encoder_widths: Widths = (16, 32, 64, 96),
    regions: Annotated[int, Range(0, 1024)] = 0,
    thumbnail_side: Annotated[int, Range(CELL, 4096)] = 192,
    explore: Annotated[float, Range(0, 1000)] = 1.0,
    dropout: Fraction = 0.0,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return a focus model for images of any size, with patches chosen on a thumbnail.

    Its cost depends on the thumbnail and on K, not on the image. The logits are computed from the
    patches and their locations only.

    Args:
        shrink: each pixel of the thumbnail is the mean of a square of shrink x shrink pixels.
        keypoints: number K of patches.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        num_classes: number of classes.
        tasks: names of the tasks, the main one first; see `AttentionHead`.
        width: dimension of a patch's vector.
        heads: number of learned queries per task that attend to the patches.
        detector_widths: output channels of the convolutions that score the thumbnail.
        encoder_widths: output channels of the convolutions that encode a patch.
        regions: number of regions that are scored in an image whose thumbnail would exceed
            `thumbnail_side`; a coarser thumbnail selects them. 0 to score every thumbnail whole.
        thumbnail_side: maximum side in pixels of a square image's thumbnail, if there are regions.
        explore: in training, factor of the Gumbel noise on the scores.
        dropout: fraction of features dropped in training.
        inputs: description of the images that the model expects.

    Example:
        >>> import torch
        >>> model = high_res(shrink=8, keypoints=4, patch_size=32)
        >>> explanation = model.explain(torch.rand(1, 1, 256, 320))
        >>> tuple(explanation.thumbnail.shape), tuple(explanation.patches.shape)
        ((1, 1, 32, 40), (1, 4, 1, 32, 32))
    """
    sizes = (keypoints, patch_size, in_channels)
    detector = HighResDetector(*sizes, shrink, detector_widths, regions, thumbnail_side, explore)
    head = AttentionHead(*sizes, num_classes, tasks, width, heads, encoder_widths, dropout)
    return FocusNet(detector, head, patch_size, inputs=inputs)


@checked
def crops(
    backbone: Backbone,
    patch_size: PatchSize = 96,
    scales: Scales = (0, 1),
    counts: Counts = (1, 4),
    shrink: Annotated[int, Range(1, 1024)] = 2,
    depth: Annotated[int, Range(1, 64)] = 3,
    num_classes: Classes = 10,
    mix: CropMix = "additive",
    width: Annotated[Width, Range(1, 4096)] = 64,
    dropout: Fraction = 0.0,
    detector_width: Width = 32,
    explore: Annotated[float, Range(0, 1000)] = 1.0,
    learned: bool = True,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return the focus model for photographs: crops from coarse to fine, encoded separately.

    Each crop is cut before the pretrained backbone encodes it, so the decision depends on the
    crops only.

    Args:
        backbone: encodes a crop; its stages up to `depth` are built a second time for the detector.
        patch_size: side of a crop in samples.
        scales: pixels per sample in the crops of each scale, from coarse to fine; 0 for one crop
            of the whole image.
        counts: number of crops of each scale.
        shrink: each pixel of the thumbnail is the mean of a square of shrink x shrink pixels.
        depth: stage of the backbone, counted from 1, whose features the detector scores.
        num_classes: number of classes.
        mix: how the crops' vectors are combined; see `CropHead`.
        width: width of the layer that scores crops, or dimension of a token; see `CropHead`.
        dropout: fraction of features dropped in training.
        detector_width: channels of the scoring net.
        explore: in training, factor of the Gumbel noise on the scores.
        learned: whether the scores are learned; if not, they are the features' mean square.
        inputs: description of the images that the model expects.

    Raises:
        UserError: the backbone cannot be cut at that depth, or an argument is invalid.

    Example:
        >>> import torch
        >>> from foveal.backbones import EfficientNetLite
        >>> model = crops(EfficientNetLite(), patch_size=32, counts=(1, 2))
        >>> tuple(model.explain(torch.rand(1, 3, 128, 160)).patches.shape)
        (1, 3, 3, 32, 32)
    """
    options = (patch_size, scales, counts, shrink, detector_width, explore, learned)
    detector = CropDetector(backbone.cut(depth), *options)
    keypoints = detector.keypoints
    head = CropHead(backbone, keypoints, patch_size, num_classes, mix, width, dropout)
    return FocusNet(detector, head, patch_size, inputs=inputs)


@checked
def published(
    kind: Annotated[str, OneOf(KINDS)] = "focus",
    keypoints: Keypoints = 3,
    patch_size: Annotated[int, Range(2, 1024)] = 5,
    in_channels: Channels = 1,
    num_classes: Classes = 10,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return a focus model of the original project, reimplemented for comparison.

    The original project is "Unboxing the Black Box: Explainable and Efficient CNNs with Focus and
    Attention". The defects of its models are preserved:

    - The P x P points of a patch are not adjacent pixels: they span 2P pixels (`focus`, `corners`)
      or the whole image (`zoom`), and the pixels between them are not averaged. Explanations show
      the true spacing as scales.
    - The learned detector averages its features over all locations before it regresses keypoints
      from them, so it can hardly localise anything.
    - Its keypoints are clamped to [-1, 1]. The clamp has no gradient outside, so a keypoint that
      leaves the image stays at its border.
    - `corners` uses (row, column) as (x, y), so the patches are cut at transposed locations.
    - `corners` has no non-maximum suppression, so all keypoints may be at the same corner.
    - The classifier does not read the locations of its patches.
    - Patches may extend beyond the image. Points outside the image are 0 after normalisation, as
      if they had the mean colour of the training images.
    - The last two linear layers of `focus` have only dropout between them: one would be enough.

    The original required square images. In others the spacing of points follows from the height.

    Args:
        kind: `focus` (56,928 parameters on MNIST), `corners` or `zoom`.
        keypoints: number K of patches.
        patch_size: points P along a patch's side, at least 2.
        in_channels: channels of the images.
        num_classes: number of classes.
        inputs: description of the images that the model expects.
    """
    detector = PublishedDetector(kind, keypoints, patch_size, in_channels)
    head = PublishedHead(keypoints, patch_size, in_channels, num_classes, kind)
    return FocusNet(detector, head, patch_size, inputs=inputs)


@checked
def reconstructor(
    detector: Detector,
    decoder: Head,
    patch_size: PatchSize = 7,
    in_channels: Channels = 1,
    softness_px: Positive = 1.0,
    inputs: Inputs = Inputs(),
) -> FocusNet:
    """Return a model that rebuilds the image from a few small patches, trained without labels.

    Args:
        detector: chooses the locations of patches.
        decoder: rebuilds the image from the patches and their locations.
        patch_size: side of a patch in pixels.
        in_channels: channels of the images.
        softness_px: width in pixels of the soft edges of the patches' mask; see `Head`.
        inputs: description of the images that the model expects.

    Raises:
        UserError: the parts do not match, or an argument is invalid.

    Example:
        >>> import torch
        >>> from foveal.detectors import ReconstructionDetector
        >>> from foveal.heads import ConvDecoder
        >>> model = reconstructor(ReconstructionDetector(keypoints=5), ConvDecoder(1))
        >>> tuple(model(torch.rand(2, 1, 28, 28)).shape)
        (2, 1, 28, 28)
    """
    check_agreement("decoder", decoder.settings(), in_channels=in_channels)
    decoder.softness_px = softness_px
    return FocusNet(detector, decoder, patch_size, inputs=inputs)
