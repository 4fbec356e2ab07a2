"""Post-hoc methods: any classifier's answer -> how much each pixel spoke for it.

They look from outside at what a model did, where `model.explain` returns what it decided from.
Both are Explanations, so that they are drawn and measured by the same code.
"""

from foveal.attribution.any_method import (
    OWN,
    explain_by,
    explainers,
    methods_of,
    own_method,
)
from foveal.attribution.controls import CONTROLS
from foveal.attribution.cost import cost_of
from foveal.attribution.methods import METHODS
from foveal.attribution.post_hoc import attribute

__all__ = [
    "CONTROLS",
    "METHODS",
    "OWN",
    "attribute",
    "cost_of",
    "explain_by",
    "explainers",
    "methods_of",
    "own_method",
]
