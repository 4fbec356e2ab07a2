"""New names of weights in files of earlier formats.

In these formats focus models were not yet composed of a detector and a head.
"""

import re
from collections.abc import Callable

_TOKEN_HEAD = (
    (r"classifier\.place\.", "head.location."),
    (r"classifier\.mix\.", "head.mixer."),
    (r"classifier\.head\.", "head.classify."),
    (r"classifier\.", "head."),
)
# For each name of a model in config.json, pairs of a pattern at the start of a weight's former name
# and its replacement. The first pattern that matches is applied.
_RENAMES = {
    "focus": _TOKEN_HEAD,
    "zoom": (*_TOKEN_HEAD, (r"(features|windows)\.", r"detector.\1.")),
    "glimpse": (*_TOKEN_HEAD, (r"(backbone|heatmaps)\.", r"detector.\1.")),
    "high-res": (
        (r"detector\.", "detector.fine."),
        (r"coarse\.", "detector.coarse."),
        (r"(encoder|attention)\.", r"head.\1."),
    ),
    "reconstructor": ((r"decoder\.", "head."),),
    "published": (
        (r"detector\.", "detector.layers."),
        (r"(encode|classify)\.", r"head.\1."),
    ),
}


def rename_function(model: str) -> Callable[[str], str]:
    """Return a function that turns a weight's name in an earlier format into its current name.

    It returns names that have not changed as they are.

    Args:
        model: the model's name in config.json.
    """
    patterns = [(re.compile(old), new) for old, new in _RENAMES.get(model, ())]

    def rename(name: str) -> str:
        for pattern, new in patterns:
            if pattern.match(name):
                return pattern.sub(new, name, count=1)
        return name

    return rename
