"""`foveal train` and `foveal recipes`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli.app import DataDir, GroupsOption, app, say, show
from foveal.foundation.errors import UserError
from foveal.foundation.interrupts import resumable

if TYPE_CHECKING:
    from foveal.training import Recipe
    from foveal.training.run import TrainOptions


@app.command()
@resumable("Give the same command with --resume to go on.")
def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="A recipe's name or file; focus, attention, baseline or none: chosen."),
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    data: Annotated[
        str | None, typer.Option(help="A dataset or folder in place of the recipe's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/RECIPE if not given.")] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    groups: GroupsOption = None,
    folds: Annotated[int, typer.Option(help="Train and test by so many folds.", min=0)] = 0,
    devices: Annotated[str, typer.Option(help="How many of each machine, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(help="How many machines.", min=1)] = 1,
    strategy: Annotated[str, typer.Option(help="auto, ddp or fsdp.")] = "auto",
    sync_norm: Annotated[
        bool, typer.Option("--sync-norm", help="Normalise over all processes' images.")
    ] = False,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Train on your photos, or by a recipe; write a run folder.

    Without a recipe, settings are chosen by what lies in --data, a folder with one folder of
    images a class; focus, attention or baseline says which kind of model.

    Example: foveal train --data photos/
    """
    from foveal.training import load_recipe
    from foveal.training.first_hour.choosing import FAMILIES

    if folds == 1:
        raise UserError("Expected --folds of 2 or more, but got 1.")
    if devices != "auto" and not (devices.isdigit() and int(devices) > 0):
        raise UserError(f"Expected --devices a number above 0, or auto, but got {devices!r}.")
    changes = list(overrides or [])
    if recipe is not None and "=" in recipe:
        changes.insert(0, recipe)
        recipe = None
    if groups is not None:
        changes.append(f"data.groups={json.dumps(groups)}")
    options: TrainOptions = {
        "data_dir": data_dir,
        "resume": resume,
        "devices": devices if devices == "auto" else int(devices),
        "nodes": nodes,
        "strategy": strategy,
        "sync_norm": sync_norm,
        "precision": precision,
        "progress": not quiet,
    }
    named = recipe is not None and recipe not in FAMILIES
    if recipe is not None and named:
        chosen = load_recipe(recipe, changes)
    elif data is None:
        raise UserError("Give --data, a folder with one folder of images a class, or a recipe.")
    else:
        from foveal.workflows.first_hour import plan

        chosen = plan(data, recipe, changes, say, data_dir)
    out = out or Path("runs") / (f"{chosen.name}-folds" if folds else chosen.name)
    if folds:
        _cross_validate(chosen, out, folds, data, options)
    elif named or data is None:
        _train_recipe(chosen, out, data, options)
    else:
        from foveal.workflows.first_hour import train_photos

        show(train_photos(chosen, out, data, say, **options))


def _cross_validate(
    chosen: "Recipe", out: Path, folds: int, data: str | None, options: "TrainOptions"
) -> None:
    from foveal.training.distribution.devices import Devices
    from foveal.training.fitting import Options
    from foveal.training.folds import cross_validate, lines

    machines = Devices(options["devices"], options["nodes"], options["strategy"])
    if machines.processes > 1:
        raise UserError("Folds train in one process: give --devices 1.")
    kept = Options(
        resume=options["resume"],
        machines=machines,
        precision=options["precision"],
        progress=options["progress"],
        callbacks=(),
        time_left=None,
        say=say,
    )
    found = cross_validate(
        chosen,
        out,
        folds,
        kept,
        data=data,
        data_dir=options["data_dir"],
        say=say,
    )
    for line in lines(found):
        say(line)
    show(out)


def _train_recipe(chosen: "Recipe", out: Path, data: str | None, options: "TrainOptions") -> None:
    from foveal.training import is_first_process
    from foveal.training import train as run
    from foveal.zoo import card

    folder = run(chosen, out, data=data, say=say, **options)
    if not is_first_process():
        return
    figures = card(folder)
    reached = (
        f"accuracy {figures['val_accuracy']:.2%}"
        if "val_accuracy" in figures
        else f"mean squared error {figures['val_mse']:.5f}"
    )
    say(
        f"Validation {reached} after epoch {figures['epoch'] + 1}, "
        f"{figures['training_seconds']:.0f} s. Next: foveal evaluate {folder} --data …"
    )
    show(folder)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="A recipe to print.")] = None,
) -> None:
    """List the recipes that `foveal train` knows, or print one.

    Example: foveal recipes mnist-corners
    """
    from foveal.training import recipe_names, recipe_text

    for line in recipe_names() if name is None else recipe_text(name).splitlines():
        show(line)
