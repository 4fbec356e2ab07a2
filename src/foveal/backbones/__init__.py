"""Backbones: networks that turn images into feature maps and a global vector."""

from foveal.backbones.backbone import Backbone, StagedBackbone
from foveal.backbones.efficientnet_lite import EfficientNetLite
from foveal.backbones.registry import BACKBONES
from foveal.backbones.timm import TimmBackbone
from foveal.backbones.vgg import VGGBackbone
from foveal.backbones.whitening import WhiteningConv

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

build_backbone, backbone_settings = BACKBONES.build, BACKBONES.settings_of
