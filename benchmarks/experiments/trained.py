"""Cached training runs for benchmarks, and statistics over seeds."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foveal import zoo
from foveal.models import ImageModel
from foveal.training import Recipe, train


def load_or_train(recipe: Recipe, run: Path, precision: str = "32-true") -> ImageModel:
    """Return the model of a run, after training or resuming the run if it is not finished."""
    if not (run / "card.json").is_file():
        train(recipe, run, resume=True, progress=False, precision=precision)
    return zoo.load(run)


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the standard deviation and the list of the results of several seeds."""
    return {
        "mean": round(statistics.mean(values), 5),
        "spread": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0,
        "accuracies": [round(value, 5) for value in values],
    }
