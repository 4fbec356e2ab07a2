"""Heads: patches and locations -> logits, or the image rebuilt."""

from foveal.backbones import BACKBONES
from foveal.foundation.registry import PartRegistry
from foveal.heads.attention import AttentionHead
from foveal.heads.crops import CropHead
from foveal.heads.decoders import DECODERS, ConvDecoder, MLPDecoder, VAEDecoder
from foveal.heads.head import Head, HeadOutput
from foveal.heads.published import PublishedHead
from foveal.heads.tokens import TokenHead

HEADS: PartRegistry[Head] = PartRegistry(
    "head",
    {
        "tokens": TokenHead,
        "attention": AttentionHead,
        "crops": CropHead,
        "published": PublishedHead,
        **{f"{name}-decoder": decoder for name, decoder in DECODERS.items()},
    },
    inner={"backbone": BACKBONES},
)
build_head, head_settings = HEADS.build, HEADS.settings_of


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
