"""A training that a benchmark needs, done once."""

from pathlib import Path

from foveal import zoo
from foveal.models import ImageModel
from foveal.training import Recipe, train


def trained(recipe: Recipe, run: Path, precision: str = "32-true") -> ImageModel:
    """Return the model of a run, trained by a recipe unless it is there; one cut off goes on."""
    if not (run / "card.json").is_file():
        train(recipe, run, resume=True, progress=False, precision=precision)
    return zoo.load(run)
