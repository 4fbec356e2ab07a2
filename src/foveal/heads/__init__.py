"""Heads: patches and locations -> logits."""

from collections.abc import Mapping

from foveal.errors import build_by_name
from foveal.heads.attention import AttentionHead
from foveal.heads.decoders import DECODERS, ConvDecoder, MLPDecoder, VAEDecoder, build_decoder
from foveal.heads.head import Head, HeadOutput
from foveal.heads.published import PublishedHead
from foveal.heads.tokens import TokenHead
from foveal.registry import Registry

HEADS: Registry[type[Head]] = Registry(
    "foveal.heads",
    {
        "tokens": TokenHead,
        "attention": AttentionHead,
        "published": PublishedHead,
        **{f"{name}-decoder": decoder for name, decoder in DECODERS.items()},
    },
)


def build_head(settings: Mapping[str, object]) -> Head:
    """Build a head from `{"name": ..., argument: value, ...}`.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    return build_by_name("head", HEADS, settings)


def head_settings(head: Head) -> dict[str, object]:
    """Return the settings from which `build_head` builds this head again.

    A head of the user's own is named by its class; add it to `HEADS` to load it again.
    """
    kind = type(head)
    return {"name": HEADS.name_of(kind) or kind.__name__, **head.settings()}


__all__ = [
    "DECODERS",
    "HEADS",
    "AttentionHead",
    "ConvDecoder",
    "Head",
    "HeadOutput",
    "MLPDecoder",
    "PublishedHead",
    "TokenHead",
    "VAEDecoder",
    "build_decoder",
    "build_head",
    "head_settings",
]
