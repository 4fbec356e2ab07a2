"""Explainers: the model itself, its contributions, and post-hoc methods for any classifier.

Post-hoc methods analyse a decision from outside, while `model.explain` returns the evidence that
the model decided from. Both return an `Explanation`, which the same code draws and measures.
"""

from foveal.explainers.controls import CONTROLS
from foveal.explainers.interface import Explainer
from foveal.explainers.own import OWN
from foveal.explainers.post_hoc import Options, PostHoc
from foveal.explainers.registry import (
    EXPLAINERS,
    attribute,
    explainer,
    methods_of,
    own_method,
    post_hoc_methods,
)
from foveal.explainers.task import Attributor, Task

__all__ = [
    "CONTROLS",
    "EXPLAINERS",
    "OWN",
    "Attributor",
    "Explainer",
    "Options",
    "PostHoc",
    "Task",
    "attribute",
    "explainer",
    "methods_of",
    "own_method",
    "post_hoc_methods",
]
