"""The demo: train two models on real digits, offline, and report where they look."""

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
SHOWN = 200  # explained images in the report


def run_demo(out: Path, say: Callable[[str], None]) -> Path:
    """Train the demo's models, evaluate them and the zoo's, write a report and return its path.

    Finished runs are not repeated. To train a model again, delete its folder below `out`.
    """
    test = load_images("mnist-5k", "test")
    train_images = load_images("mnist-5k", "train")
    entries = []
    for name in RECIPES:
        folder = _trained(name, out / "runs" / name, say)
        entries.append(_entry(name, folder, test, train_images, say, note="trained just now"))
    for name in zoo.names():
        if name.startswith("mnist-") and name != zoo.judge_of(
            "mnist"
        ):  # judges have no explanation
            folder = zoo.folder(name)
            entries.append(_entry(name, folder, test, train_images, say, note="from the zoo"))
    return write_report(entries, out)


def _trained(name: str, folder: Path, say: Callable[[str], None]) -> Path:
    recipe = load_recipe(name)
    if (folder / "card.json").exists() and parse_recipe(zoo.card(folder)["recipe"]) == recipe:
        say(f"{name}: already trained in {folder}")
        return folder
    say(f"{name}: training for {recipe.training.epochs} epochs")
    try:
        return train(recipe, folder, resume=(folder / "recipe.yaml").exists())
    except UserError as error:
        raise UserError(f"{error} (or delete {folder})") from None


def _entry(
    name: str,
    folder: Path,
    test: ImageSet,
    train_images: ImageSet,
    say: Callable[[str], None],
    note: str,
) -> ReportEntry:
    say(f"{name}: evaluating")
    model = zoo.load(folder)
    figures = evaluate(model, test, train_images, name=name)
    shown = test.subset(torch.arange(0, len(test), max(1, len(test) // SHOWN)))
    return ReportEntry(
        name=name,
        card={**zoo.card(folder), **figures},
        explanation=model.explain(as_floats(shown.images)),
        labels=shown.labels,
        curve=zoo.curve(folder),
        note=note,
    )
