"""Models, which turn images into logits (or a rebuilt image) and an explanation.

A model is described by settings: its name and the arguments of its constructor as plain values.
They are stored in the config.json of a saved model, and in a recipe, the YAML file that describes
a training run. A part is a detector, head, backbone or decoder, with settings of its own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any, cast, get_type_hints

from foveal.backbones import BACKBONES, build_backbone
from foveal.detectors import DETECTORS, build_detector
from foveal.foundation.arguments import check_values
from foveal.foundation.errors import (
    UserError,
    build_by_name,
    build_checked,
    check_known,
    split_name,
)
from foveal.foundation.registry import Registry
from foveal.heads import DECODERS, HEADS, build_head
from foveal.models import presets
from foveal.models.abilities import Ability
from foveal.models.attention import AttentionNet
from foveal.models.classifier import as_classifier
from foveal.models.cnn import SmallCNN
from foveal.models.focus import FocusNet
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs
from foveal.models.plain import PlainNet
from foveal.models.published_attention import PublishedAttention
from foveal.models.self_attention import SANet
from foveal.models.vgg import VGG16
from foveal.models.weights import parameter_limit

__all__ = [
    "MODELS",
    "VGG16",
    "AttentionNet",
    "FocusNet",
    "ImageModel",
    "Inputs",
    "PlainNet",
    "PublishedAttention",
    "SANet",
    "SmallCNN",
    "abilities_of",
    "as_classifier",
    "build_model",
    "check_settings",
    "model_name",
    "model_type",
    "presets",
]

# Each name in config.json and recipes refers to a class, or to a preset: a function that returns a
# model.
MODELS: Registry[Callable[..., ImageModel]] = Registry(
    "foveal.models",
    {
        "focus": presets.focus,
        "zoom": presets.zoom,
        "glimpse": presets.glimpse,
        "high-res": presets.high_res,
        "crops": presets.crops,
        "reconstructor": presets.reconstructor,
        "published": presets.published,
        **{
            model.name: model
            for model in (
                FocusNet,
                AttentionNet,
                SANet,
                SmallCNN,
                VGG16,
                PlainNet,
                PublishedAttention,
            )
        },
    },
)
PARTS: dict[str, Mapping[str, type]] = {
    "detector": DETECTORS,
    "head": HEADS,
    "backbone": BACKBONES,
    "decoder": DECODERS,
}
BUILDERS: dict[str, Callable[[Any], Any]] = {
    "detector": build_detector,
    "head": build_head,
    "backbone": build_backbone,
    "decoder": partial(build_by_name, "decoder", DECODERS),
    "inputs": Inputs.from_settings,
}


def build_model(settings: Mapping[str, object]) -> ImageModel:
    """Build a model with new weights from the settings in a config.json or a recipe.

    Args:
        settings: `{"name": ..., argument: value, ...}`. The values of `detector`, `head`,
            `decoder`, `backbone` and `inputs` are themselves settings, the last without a name.

    Raises:
        UserError: a name or an argument is unknown (the error suggests the nearest one), missing or
            invalid, or the model would have more than `MAX_PARAMETERS` parameters.
    """
    name, arguments = split_name("model", MODELS, settings)
    build = MODELS[name]
    with parameter_limit():
        if isinstance(build, type):
            return cast(type[ImageModel], build).from_settings(arguments)
        for part in set(arguments) & set(BUILDERS) & set(signature(build).parameters):
            arguments[part] = BUILDERS[part](arguments[part])
        return build_checked(f"model {name!r}", build, arguments)


def model_type(name: str) -> type[ImageModel]:
    """Return the class of the models that are built by a name in `MODELS`.

    Raises:
        UserError: another package has registered something else than a model under that name.
    """
    build = MODELS[name]
    try:
        model_class = build if isinstance(build, type) else get_type_hints(build).get("return")
    except (NameError, TypeError):  # its annotations cannot be resolved, or it is not a function
        model_class = None
    if not (isinstance(model_class, type) and issubclass(model_class, ImageModel)):
        raise UserError(
            f"Expected the model {name!r} to be a subclass of ImageModel, or a function that is "
            f"annotated to return one, but got {build!r:.100}."
        )
    return model_class


def abilities_of(settings: Mapping[str, object]) -> frozenset[Ability]:
    """Return the abilities of the model that settings describe, without building it.

    The result is empty if there is no model of that name.
    """
    name = settings.get("name")
    if not isinstance(name, str) or name not in MODELS:
        return frozenset()
    return model_type(name).abilities_with(settings)


def check_settings(settings: object) -> None:
    """Check the names and values of settings for `build_model`, without building a model.

    Settings may be missing, because training completes those of a recipe from the data.

    Raises:
        UserError: a name is unknown, or a value is invalid.
    """
    name, arguments = split_name("model", MODELS, settings)
    _check_values(f"model {name!r}", MODELS[name], arguments)
    if "inputs" in arguments:
        Inputs.from_settings(arguments["inputs"])
    for part, registry in PARTS.items():
        if part in arguments and part in signature(MODELS[name]).parameters:
            part_name, nested = split_name(part, registry, arguments[part])
            _check_values(f"{part} {part_name!r}", registry[part_name], nested)


def _check_values(
    label: str, build: Callable[..., object], arguments: Mapping[str, object]
) -> None:
    """Check the names of arguments of `build`, and their values, except those of nested settings.

    Args:
        label: what the arguments belong to, for error messages.
        build: the class or function.
        arguments: its arguments by name.
    """
    check_known(label, build, arguments)
    values = {k: v for k, v in arguments.items() if k not in PARTS and k != "inputs"}
    try:
        check_values(build, values)
    except UserError as error:
        raise UserError(f"{label}: {error}") from None


def model_name(model: ImageModel) -> str:
    """Return the name of a model's class in `MODELS`."""
    return type(model).name
