"""Registry of backbones."""

from foveal.backbones.backbone import Backbone
from foveal.backbones.efficientnet_lite import EfficientNetLite
from foveal.backbones.timm import TimmBackbone
from foveal.backbones.vgg import VGGBackbone
from foveal.foundation.registry import PartRegistry

BACKBONES: PartRegistry[Backbone] = PartRegistry(
    "backbone",
    {
        "efficientnet-lite0": EfficientNetLite,
        "vgg": VGGBackbone,
        "timm": TimmBackbone,
    },
)
