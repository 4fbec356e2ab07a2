"""Explainers: the model's own explanation, its contributions, and post-hoc methods.

The model's own explanation (`model.explain`) is the evidence that the model decided from.
Contributions are the terms that the locations of an image add to a logit. Post-hoc methods analyse
the decision of any classifier from outside. All of them return an `Explanation`, which the same
code draws and measures.
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
