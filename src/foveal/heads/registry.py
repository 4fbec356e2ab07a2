"""Registry of heads."""

from foveal.backbones import BACKBONES
from foveal.foundation.registry import PartRegistry
from foveal.heads.attention import AttentionHead
from foveal.heads.crops import CropHead
from foveal.heads.decoders import DECODERS
from foveal.heads.head import Head
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
