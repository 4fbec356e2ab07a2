"""Heads: the parts of focus models that turn patches and locations into logits or an image."""

from foveal.heads.attention import AttentionHead
from foveal.heads.crops import CropHead
from foveal.heads.decoders import DECODERS, ConvDecoder, MLPDecoder, VAEDecoder
from foveal.heads.head import Head, HeadOutput
from foveal.heads.published import PublishedHead
from foveal.heads.registry import HEADS
from foveal.heads.tokens import TokenHead

__all__ = [
    "DECODERS",
    "HEADS",
    "AttentionHead",
    "ConvDecoder",
    "CropHead",
    "Head",
    "HeadOutput",
    "MLPDecoder",
    "PublishedHead",
    "TokenHead",
    "VAEDecoder",
    "build_head",
    "head_settings",
]

build_head, head_settings = HEADS.build, HEADS.settings_of
