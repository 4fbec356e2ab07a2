"""`foveal train` and `foveal recipes`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.app import app, notify, print_result
from foveal.cli.options import DataDir, Groups, TrainData
from foveal.foundation.errors import UserError
from foveal.foundation.interrupts import resumable

if TYPE_CHECKING:
    from foveal.training import Recipe
    from foveal.training.run import TrainOptions


RecipeArgument = Annotated[
    str | None,
    typer.Argument(
        help="Recipe name or file, or focus, attention, baseline. Default: chosen from the images."
    ),
]
SyncNorm = Annotated[
    bool, typer.Option("--sync-norm", help="Synchronise batch norm over processes.")
]


@app.command()
@resumable("Run the same command with --resume to continue.")
def train(
    recipe: RecipeArgument = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: TrainData = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/RECIPE.")] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    groups: Groups = None,
    folds: Annotated[int, typer.Option(help="Number of cross-validation folds.", min=0)] = 0,
    devices: Annotated[str, typer.Option(help="Devices per machine, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(help="Number of machines.", min=1)] = 1,
    strategy: Annotated[str, typer.Option(help="auto, ddp or fsdp.")] = "auto",
    sync_norm: SyncNorm = False,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train on your photos, or from a recipe; write a run folder.

    Without a recipe, settings are chosen for the images in --data, a folder with one folder of
    images per class; focus, attention or baseline chooses the kind of model.

    Example: foveal train --data photos/
    """
    options: TrainOptions = {
        "data_dir": data_dir,
        "resume": resume,
        "devices": _device_count(devices),
        "nodes": nodes,
        "strategy": strategy,
        "sync_norm": sync_norm,
        "precision": precision,
        "progress": not quiet,
    }
    changes = list(overrides or [])
    if recipe is not None and "=" in recipe:
        changes.insert(0, recipe)
        recipe = None
    if groups is not None:
        changes.append(f"data.groups={json.dumps(groups)}")
    _train(recipe, changes, data, out, folds, options)


def _device_count(text: str) -> int | str:
    """Return the value of --devices, a positive integer or `auto`."""
    if text == "auto":
        return text
    if not (text.isdigit() and int(text) > 0):
        raise UserError(f"Expected --devices to be a positive integer or auto, but got {text!r}.")
    return int(text)


def _train(
    recipe: str | None,
    changes: list[str],
    data: str | None,
    out: Path | None,
    folds: int,
    options: "TrainOptions",
) -> None:
    """Train a model from a recipe, or cross-validate the recipe if `folds` is not 0.

    If `recipe` is None or only a kind of model, such as `focus`, a recipe is chosen for the images
    in `data`. `changes` are recipe keys to set, such as `epochs=3`. `options` are those of
    `training.train`.
    """
    if folds == 1:
        raise UserError("Expected --folds to be 0 or at least 2, but got 1.")
    from foveal.training import load_recipe
    from foveal.training.first_hour.choosing import FAMILIES

    is_recipe = recipe is not None and recipe not in FAMILIES
    if recipe is not None and is_recipe:
        chosen_recipe = load_recipe(recipe, changes)
    elif data is None:
        raise UserError("Give --data, a folder with one folder of images per class, or a recipe.")
    else:
        from foveal.workflows.first_hour import plan

        chosen_recipe = plan(data, recipe, changes, notify, options["data_dir"])
    out = out or Path("runs") / (f"{chosen_recipe.name}-folds" if folds else chosen_recipe.name)
    if folds:
        _cross_validate(chosen_recipe, out, folds, data, options)
    elif is_recipe or data is None:
        _train_recipe(chosen_recipe, out, data, options)
    else:
        from foveal.workflows.first_hour import train_photos

        print_result(train_photos(chosen_recipe, out, data, notify, **options))


def _cross_validate(
    recipe: "Recipe", out: Path, folds: int, data: str | None, options: "TrainOptions"
) -> None:
    """Cross-validate a recipe and report the results; `options` are those of `training.train`."""
    from foveal.training.cross_validation import lines
    from foveal.training.distribution.devices import Devices
    from foveal.training.folds import cross_validate
    from foveal.training.options import Options

    devices = Devices(options["devices"], options["nodes"], options["strategy"])
    if devices.processes > 1:
        raise UserError("Cross-validation runs in one process: give --devices 1.")
    run_options = Options(
        resume=options["resume"],
        devices=devices,
        precision=options["precision"],
        progress=options["progress"],
        callbacks=(),
        notify=None,
        warn=notify,
    )
    results = cross_validate(
        recipe,
        out,
        folds,
        run_options,
        data=data,
        data_dir=options["data_dir"],
        notify=notify,
    )
    for line in lines(results):
        notify(line)
    print_result(out)


def _train_recipe(recipe: "Recipe", out: Path, data: str | None, options: "TrainOptions") -> None:
    """Train a model from a recipe, and report its accuracy or error on the validation images."""
    from foveal.training import is_first_process
    from foveal.training import train as run
    from foveal.zoo import card

    folder = run(recipe, out, data=data, notify=notify, **options)
    if not is_first_process():
        return
    figures = card(folder)
    result = (
        f"accuracy {figures['val_accuracy']:.2%}"
        if "val_accuracy" in figures
        else f"mean squared error {figures['val_mse']:.5f}"
    )
    notify(
        f"Validation {result} after epoch {figures['epoch'] + 1}, "
        f"{figures['training_seconds']:.0f} s. Next: foveal evaluate {folder} --data …"
    )
    print_result(folder)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print.")] = None,
) -> None:
    """List the recipes of `foveal train`, or print one.

    Example: foveal recipes mnist-corners
    """
    from foveal.training import recipe_names, recipe_text

    for line in recipe_names() if name is None else recipe_text(name).splitlines():
        print_result(line)
