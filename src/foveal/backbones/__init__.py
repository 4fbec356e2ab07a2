"""Backbones: images -> feature maps."""

from collections.abc import Mapping

from foveal.backbones.backbone import Backbone, StagedBackbone
from foveal.backbones.efficientnet_lite import EfficientNetLite
from foveal.backbones.timm import TimmBackbone
from foveal.backbones.vgg import VGGBackbone
from foveal.backbones.whitening import WhiteningConv
from foveal.errors import build_by_name
from foveal.registry import Registry

__all__ = [
    "BACKBONES",
    "Backbone",
    "EfficientNetLite",
    "StagedBackbone",
    "TimmBackbone",
    "VGGBackbone",
    "WhiteningConv",
    "backbone_settings",
    "build_backbone",
]

BACKBONES: Registry[type[Backbone]] = Registry(
    "foveal.backbones",
    {
        "efficientnet-lite0": EfficientNetLite,
        "vgg": VGGBackbone,
        "timm": TimmBackbone,
    },
)


def build_backbone(settings: Mapping[str, object]) -> Backbone:
    """Build a backbone from `{"name": ..., argument: value, ...}`.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    return build_by_name("backbone", BACKBONES, settings)


def backbone_settings(backbone: Backbone) -> dict[str, object]:
    """Return the settings from which `build_backbone` builds this backbone again.

    A backbone of the user's own is named by its class; add it to `BACKBONES` to load it again.
    """
    kind = type(backbone)
    return {"name": BACKBONES.name_of(kind) or kind.__name__, **backbone.settings()}
