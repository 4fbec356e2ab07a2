"""Explainers: the model itself, its contributions, and post-hoc methods of any classifier.

Post-hoc methods look from outside at what a model did, where `model.explain` returns what it
decided from. Both are Explanations, so that they are drawn and measured by the same code.
"""

from foveal.explainers.controls import CONTROLS
from foveal.explainers.interface import Explainer
from foveal.explainers.own import OWN
from foveal.explainers.post_hoc import PostHoc
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
    "PostHoc",
    "Task",
    "attribute",
    "explainer",
    "methods_of",
    "own_method",
    "post_hoc_methods",
]
