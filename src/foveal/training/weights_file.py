"""User-supplied weights file that a recipe names for its backbone."""

from collections.abc import Mapping
from pathlib import Path

_FILE = ".safetensors"


def weights_file(model: Mapping[str, object]) -> Path | None:
    """Return the weights file that a recipe's model names for its backbone, or None."""
    backbone = model.get("backbone")
    weights = backbone.get("weights") if isinstance(backbone, Mapping) else None
    if not isinstance(weights, str) or not weights.endswith(_FILE):
        return None
    return Path(weights).expanduser()


def without_file(model: Mapping[str, object]) -> dict[str, object]:
    """Return a recipe's model settings without the backbone's weights file, ready to be built."""
    backbone = model.get("backbone")
    if not isinstance(backbone, Mapping) or weights_file(model) is None:
        return dict(model)
    return {**model, "backbone": {k: v for k, v in backbone.items() if k != "weights"}}
