"""The demo: two models trained on real digits, offline, and a report on where they look."""

from collections.abc import Callable
from pathlib import Path

import torch

from foveal import zoo
from foveal.datasets import ImageSet, load_images
from foveal.evaluation.report import ReportEntry, write_report
from foveal.foundation.errors import UserError
from foveal.images.values import as_floats
from foveal.metrics import evaluate
from foveal.training import load_recipe, parse_recipe, train

RECIPES = ("mnist-5k-focus", "mnist-5k-corners")
MAX_EXPLAINED = 200  # approximate number of explained images per model in the report


def run_demo(out: Path, notify: Callable[[str], None]) -> Path:
    """Train the demo's models, evaluate them and the zoo's, and return the path of the report.

    A model that has been trained already is not trained again, unless its folder below `out` is
    deleted.

    Args:
        out: folder of the report, and of the runs.
        notify: called with a line on what is done next.
    """
    test = load_images("mnist-5k", "test")
    train_images = load_images("mnist-5k", "train")
    entries = []
    for name in RECIPES:
        folder = _train_once(name, out / "runs" / name, notify)
        entries.append(_entry(name, folder, test, train_images, notify, note="trained just now"))
    for name in zoo.names():
        # A judge scores the evidence of other models and does not explain itself.
        if name.startswith("mnist-") and name != zoo.judge_of("mnist"):
            folder = zoo.folder(name)
            entries.append(_entry(name, folder, test, train_images, notify, note="from the zoo"))
    return write_report(entries, out)


def _train_once(name: str, folder: Path, notify: Callable[[str], None]) -> Path:
    """Train a model from a recipe, unless its folder holds one from the same recipe already.

    An interrupted run is continued. Return the folder.
    """
    recipe = load_recipe(name)
    if (folder / "card.json").exists() and parse_recipe(zoo.card(folder)["recipe"]) == recipe:
        notify(f"{name}: already trained in {folder}")
        return folder
    epochs = recipe.training.epochs
    notify(f"{name}: training for {epochs} epoch{'' if epochs == 1 else 's'}")
    try:
        return train(recipe, folder, resume=(folder / "recipe.yaml").exists())
    except UserError as error:
        raise UserError(f"{error} To train the model again, delete {folder}.") from None


def _entry(
    name: str,
    folder: Path,
    test: ImageSet,
    train_images: ImageSet,
    notify: Callable[[str], None],
    note: str,
) -> ReportEntry:
    """Evaluate the model in a folder and return its entry in the report."""
    notify(f"{name}: evaluating")
    model = zoo.load(folder)
    figures = evaluate(model, test, train_images, name=name)
    sample = test.subset(torch.arange(0, len(test), max(1, len(test) // MAX_EXPLAINED)))
    return ReportEntry(
        name=name,
        card={**zoo.card(folder), **figures},
        explanation=model.explain(as_floats(sample.images)),
        labels=sample.labels,
        curve=zoo.curve(folder),
        note=note,
    )
