"""A training that a benchmark needs, done once, and what several of them reached."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveal import zoo
from foveal.models import ImageModel
from foveal.training import Recipe, train


def trained(recipe: Recipe, run: Path, precision: str = "32-true") -> ImageModel:
    """Return the model of a run, trained by a recipe unless it is there; one cut off goes on."""
    if not (run / "card.json").is_file():
        train(recipe, run, resume=True, progress=False, precision=precision)
    return zoo.load(run)


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of what several seeds reached, their standard deviation, and each."""
    return {
        "mean": round(statistics.mean(values), 5),
        "spread": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0,
        "accuracies": [round(value, 5) for value in values],
    }
