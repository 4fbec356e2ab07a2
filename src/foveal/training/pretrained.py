"""Initial weights of a recipe's backbone: shipped with Foveal, from the Hub, or from a file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from foveal.backbones.timm import backbone_weights
from foveal.foundation.escaping import printable
from foveal.foundation.model_files import weights_digest
from foveal.training.settings import Recipe

SHIPPED_BACKBONE = {"name": "efficientnet-lite0", "weights": "imagenet"}
_SUFFIX = ".safetensors"


def with_available_backbone(recipe: Recipe, notify: Callable[[str], None]) -> Recipe:
    """Return a recipe whose pretrained backbone is available.

    If the recipe requires weights from timm that cannot be downloaded, its backbone is replaced by
    the one that is shipped with Foveal. All other recipes are returned unchanged.

    Args:
        recipe: the recipe.
        notify: called with a line if the backbone is replaced.
    """
    backbone = recipe.model.get("backbone")
    if not isinstance(backbone, Mapping) or not backbone.get("pretrained"):
        return recipe
    name = str(backbone.get("model", "resnet18"))
    source = backbone_weights(name)
    if source == "pretrained":
        return recipe
    reason = "timm is not installed" if source == "none" else "the Hub cannot be reached"
    notify(
        f"The weights of timm's {printable(name)} are not available ({reason}): using the "
        "EfficientNet-Lite0 that comes with Foveal instead."
    )
    return replace(recipe, model={**recipe.model, "backbone": dict(SHIPPED_BACKBONE)})


def weights_file(model: Mapping[str, object]) -> Path | None:
    """Return the weights file that a recipe's model settings give for the backbone, or None."""
    backbone = model.get("backbone")
    weights = backbone.get("weights") if isinstance(backbone, Mapping) else None
    if not isinstance(weights, str) or not weights.endswith(_SUFFIX):
        return None
    return Path(weights).expanduser()


def without_weights_file(model: Mapping[str, object]) -> dict[str, object]:
    """Return a recipe's model settings without the weights file of the backbone.

    These are the settings for `build_model`, which does not read weights files.
    """
    backbone = model.get("backbone")
    if not isinstance(backbone, Mapping) or weights_file(model) is None:
        return dict(model)
    return {**model, "backbone": {k: v for k, v in backbone.items() if k != "weights"}}


def weights_origin(model: Mapping[str, object]) -> str | None:
    """Return a text on where the initial weights of a recipe's backbone are from, for the card.

    A card describes a trained model and its training. The result is None if the model settings do
    not name a backbone.
    """
    backbone = model.get("backbone")
    if not isinstance(backbone, Mapping):
        return None
    if (path := weights_file(model)) is not None:
        return f"{printable(path.name)}, SHA-256 {weights_digest(path)}"
    if backbone.get("weights"):
        return f"{backbone['weights']}, shipped with Foveal"
    if backbone.get("pretrained"):
        return f"timm's {backbone.get('model', 'resnet18')}, from the Hub"
    return "random"
