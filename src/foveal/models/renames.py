"""Names of weights in files of earlier formats, before focus models had a detector and a head."""

import re
from collections.abc import Callable

_TOKENS = (
    (r"classifier\.place\.", "head.location."),
    (r"classifier\.mix\.", "head.mixer."),
    (r"classifier\.head\.", "head.classify."),
    (r"classifier\.", "head."),
)
# By the model's name in config.json; the first matching pattern applies.
_RENAMES = {
    "focus": _TOKENS,
    "zoom": (*_TOKENS, (r"(features|windows)\.", r"detector.\1.")),
    "glimpse": (*_TOKENS, (r"(backbone|heatmaps)\.", r"detector.\1.")),
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
    """Return the function from a weight's name in files of earlier formats to its current name.

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
