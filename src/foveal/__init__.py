"""Foveal: image classifiers that show what they looked at, and spend computation only there."""

from typing import TYPE_CHECKING

from foveal.foundation.lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from foveal import datasets, detectors, explainers, heads, metrics, models, plotting, zoo
    from foveal.datasets import load_images
    from foveal.deployment.batch import predict
    from foveal.explainers import attribute
    from foveal.explanation import Explanation
    from foveal.foundation.errors import UserError
    from foveal.images import geometry
    from foveal.metrics import evaluate
    from foveal.models.attention import AttentionNet
    from foveal.models.cnn import SmallCNN
    from foveal.models.focus import FocusNet
    from foveal.models.inputs import Inputs
    from foveal.models.self_attention import SANet
    from foveal.training import load_recipe, train
    from foveal.zoo import load
else:  # names are imported on first use, because importing torch takes seconds
    __getattr__ = lazy_names(
        __name__,
        {
            "AttentionNet": "foveal.models.attention",
            "Explanation": "foveal.explanation",
            "FocusNet": "foveal.models.focus",
            "Inputs": "foveal.models.inputs",
            "SANet": "foveal.models.self_attention",
            "SmallCNN": "foveal.models.cnn",
            "UserError": "foveal.foundation.errors",
            "attribute": "foveal.explainers",
            "datasets": "foveal.datasets",
            "detectors": "foveal.detectors",
            "evaluate": "foveal.metrics",
            "explainers": "foveal.explainers",
            "geometry": "foveal.images.geometry",
            "heads": "foveal.heads",
            "load": "foveal.zoo",
            "load_images": "foveal.datasets",
            "load_recipe": "foveal.training",
            "metrics": "foveal.metrics",
            "models": "foveal.models",
            "plotting": "foveal.plotting",
            "predict": "foveal.deployment.batch",
            "train": "foveal.training",
            "zoo": "foveal.zoo",
        },
    )

__all__ = [
    "AttentionNet",
    "Explanation",
    "FocusNet",
    "Inputs",
    "SANet",
    "SmallCNN",
    "UserError",
    "attribute",
    "datasets",
    "detectors",
    "evaluate",
    "explainers",
    "geometry",
    "heads",
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


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
