"""Models: images -> logits or the image rebuilt, and what they looked at."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from foveal.arguments import check_values
from foveal.backbones import BACKBONES
from foveal.detectors import DETECTORS
from foveal.errors import UserError, check_known, split_name
from foveal.models.attention import AttentionNet
from foveal.models.attention_model import AttentionModel
from foveal.models.classifier import ImageClassifier
from foveal.models.cnn import SmallCNN
from foveal.models.decoders import DECODERS
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
from foveal.models.weights import parameter_limit
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
    "check_settings",
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
PARTS: dict[str, Mapping[str, type]] = {
    "detector": DETECTORS,
    "backbone": BACKBONES,
    "decoder": DECODERS,
}


def build_model(settings: Mapping[str, Any]) -> ImageModel:
    """Build a model from `{"name": ..., argument: value, ...}`, as config.json and recipes hold it.

    A `detector`, a `decoder`, a `backbone` and `inputs` are settings of their own. The weights
    are new.

    Raises:
        UserError: a name or an argument is not known (the nearest one is named), is missing or of
            no use, or the model would have more than `MAX_PARAMETERS` parameters.
    """
    name, arguments = split_name("model", MODELS, settings)
    with parameter_limit():
        return MODELS[name].from_settings(arguments)


def check_settings(settings: object) -> None:
    """Check names and values of settings as `build_model` takes them, without building anything.

    What is missing is no error: training completes a recipe's settings from the data.

    Raises:
        UserError: a name is not known, or a value of no use.
    """
    name, arguments = split_name("model", MODELS, settings)
    _check_values(f"model {name!r}", MODELS[name], arguments)
    if "inputs" in arguments:
        Inputs.from_settings(arguments["inputs"])
    for part, known in PARTS.items():
        if part in arguments and part in signature(MODELS[name]).parameters:
            named, inner = split_name(part, known, arguments[part])
            _check_values(f"{part} {named!r}", known[named], inner)


def _check_values(what: str, kind: type, arguments: Mapping[str, Any]) -> None:
    check_known(what, kind, arguments)
    values = {k: v for k, v in arguments.items() if k not in PARTS and k != "inputs"}
    try:
        check_values(kind, values)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


def model_name(model: ImageModel) -> str:
    """Return the name of a model's kind in `MODELS`."""
    return type(model).name
