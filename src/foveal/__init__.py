"""Foveal: image classifiers that show what they looked at, and pay only for what they look at."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Each name is imported when it is first used: torch alone takes seconds.
_LAZY = {
    "AttentionNet": "foveal.models.attention",
    "Explanation": "foveal.explanation",
    "FocusNet": "foveal.models.focus",
    "GlimpseNet": "foveal.models.glimpse",
    "HighResFocusNet": "foveal.models.high_res",
    "Inputs": "foveal.models.image_model",
    "PatchReconstructor": "foveal.models.reconstructor",
    "SANet": "foveal.models.self_attention",
    "SmallCNN": "foveal.models.cnn",
    "UserError": "foveal.errors",
    "ZoomNet": "foveal.models.zoom",
    "attribute": "foveal.attribution",
    "evaluate": "foveal.metrics",
    "load": "foveal.zoo",
    "load_images": "foveal.data",
    "load_recipe": "foveal.training",
    "predict": "foveal.batch",
    "train": "foveal.training",
}
_MODULES = ("attribution", "data", "detectors", "geometry", "metrics", "models", "plotting", "zoo")

if TYPE_CHECKING:
    from foveal import attribution, data, detectors, geometry, metrics, models, plotting, zoo
    from foveal.attribution import attribute
    from foveal.batch import predict
    from foveal.data import load_images
    from foveal.errors import UserError
    from foveal.explanation import Explanation
    from foveal.metrics import evaluate
    from foveal.models.attention import AttentionNet
    from foveal.models.cnn import SmallCNN
    from foveal.models.focus import FocusNet
    from foveal.models.glimpse import GlimpseNet
    from foveal.models.high_res import HighResFocusNet
    from foveal.models.image_model import Inputs
    from foveal.models.reconstructor import PatchReconstructor
    from foveal.models.self_attention import SANet
    from foveal.models.zoom import ZoomNet
    from foveal.training import load_recipe, train
    from foveal.zoo import load

__all__ = [
    "AttentionNet",
    "Explanation",
    "FocusNet",
    "GlimpseNet",
    "HighResFocusNet",
    "Inputs",
    "PatchReconstructor",
    "SANet",
    "SmallCNN",
    "UserError",
    "ZoomNet",
    "attribute",
    "attribution",
    "data",
    "detectors",
    "evaluate",
    "geometry",
    "load",
    "load_images",
    "load_recipe",
    "metrics",
    "models",
    "plotting",
    "predict",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"foveal.{name}")
    raise AttributeError(f"module 'foveal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
