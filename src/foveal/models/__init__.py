"""Models: images -> logits or the image rebuilt, and what they looked at."""

from collections.abc import Mapping
from typing import Any

from foveal.backbones import build_backbone
from foveal.detectors import build_detector
from foveal.errors import build_named, check_arguments, check_named
from foveal.models.attention import AttentionNet
from foveal.models.attention_model import AttentionModel
from foveal.models.classifier import ImageClassifier
from foveal.models.cnn import SmallCNN
from foveal.models.decoders import build_decoder
from foveal.models.focus import FocusNet
from foveal.models.focus_model import FocusModel
from foveal.models.glimpse import GlimpseNet
from foveal.models.high_res import HighResFocusNet
from foveal.models.image_model import ImageModel, Inputs
from foveal.models.large_model import LargeFocusModel
from foveal.models.plain import PlainNet
from foveal.models.published import PublishedFocus
from foveal.models.published_attention import PublishedAttention
from foveal.models.reconstructor import PatchReconstructor
from foveal.models.self_attention import SANet
from foveal.models.vgg import VGG16
from foveal.models.zoom import ZoomNet

__all__ = [
    "MODELS",
    "VGG16",
    "AttentionModel",
    "AttentionNet",
    "FocusModel",
    "FocusNet",
    "GlimpseNet",
    "HighResFocusNet",
    "ImageClassifier",
    "ImageModel",
    "Inputs",
    "LargeFocusModel",
    "PatchReconstructor",
    "PlainNet",
    "PublishedAttention",
    "PublishedFocus",
    "SANet",
    "SmallCNN",
    "ZoomNet",
    "build_model",
    "model_name",
]

MODELS: dict[str, type[ImageModel]] = {
    model.name: model
    for model in (
        FocusNet,
        ZoomNet,
        GlimpseNet,
        HighResFocusNet,
        PatchReconstructor,
        AttentionNet,
        SANet,
        SmallCNN,
        VGG16,
        PlainNet,
        PublishedFocus,
        PublishedAttention,
    )
}


def build_model(settings: Mapping[str, Any]) -> ImageModel:
    """Build a model from `{"name": ..., argument: value, ...}`, as config.json and recipes hold it.

    A `detector`, a `decoder`, a `backbone` and `inputs` are settings of their own. The weights
    are new.

    Raises:
        UserError: a name or an argument is not known (the nearest one is named), is missing or of
            no use.
    """
    arguments = check_named("model", MODELS, settings)
    name = arguments.pop("name")
    if "detector" in arguments:
        arguments["detector"] = build_detector(arguments["detector"])
    if "backbone" in arguments:
        arguments["backbone"] = build_backbone(arguments["backbone"])
    if "decoder" in arguments:
        arguments["decoder"] = build_decoder(arguments["decoder"])
    if isinstance(arguments.get("inputs"), Mapping):
        check_arguments("inputs", Inputs, arguments["inputs"])
        arguments["inputs"] = Inputs(**arguments["inputs"])
    return build_named(f"model {name!r}", MODELS[name], arguments)


def model_name(model: ImageModel) -> str:
    """Return the name of a model's kind in `MODELS`."""
    return type(model).name
