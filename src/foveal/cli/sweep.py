"""`foveal sweep`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import AsJson, DataDir, app, say, show, show_json
from foveal.foundation.interrupts import resumable


@app.command()
@resumable("Finished trials are kept: give the same command to go on.")
def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    choices: Annotated[list[str], typer.Argument(metavar="KEY=A,B,C...")],
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("sweep"),
    trials: Annotated[
        int | None, typer.Option(help="How many in all; one a combination if not given.", min=1)
    ] = None,
    sampler: Annotated[str, typer.Option(help="grid or tpe.")] = "grid",
    prune: Annotated[
        bool, typer.Option(help="End trials that do worse than most at the same epoch.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    data: Annotated[
        str | None, typer.Option(help="A dataset or folder in place of the recipe's.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe in many ways, by any number of processes.

    Run it again to go on.

    Example: foveal sweep mnist-5k-focus model.patch_size=3,5,7 lr=0.003,0.006
    """
    from foveal.training.sweeps.sweep import best_for_their_evidence, parse_space
    from foveal.training.sweeps.sweep import sweep as run

    found = run(
        recipe,
        parse_space(recipe, choices),
        out,
        trials=trials,
        sampler=sampler,
        prune=prune,
        seed=seed,
        data=data,
        data_dir=data_dir,
        say=say,
    )
    if as_json:
        show_json({"out": str(out), "trials": [asdict(trial) for trial in found]})
        return
    for trial in best_for_their_evidence(found):
        settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
        show(f"{trial.val_accuracy:.2%} from {trial.evidence_fraction:.1%}: {settings}")
    show(out / "frontier.png")
