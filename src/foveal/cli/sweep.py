"""`foveal sweep`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_json, print_result
from foveal.foundation.interrupts import resumable

if TYPE_CHECKING:
    from foveal.training.sweeps.study import Trial


TrialsOption = Annotated[
    int | None,
    typer.Option("--trials", help="Number of trials. Default: one per combination.", min=1),
]
PruneOption = Annotated[
    bool,
    typer.Option(
        "--prune/--no-prune", help="Stop trials that are below the median at the same epoch."
    ),
]
SeedOption = Annotated[
    int, typer.Option("--seed", help="Seed for tpe; 0 for a different one in each process.")
]


@app.command()
@resumable("Finished trials are kept: run the same command again to continue.")
def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a YAML file.")],
    choices: Annotated[list[str], typer.Argument(metavar="KEY=A,B,C...")],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("sweep"),
    trials: TrialsOption = None,
    sampler: Annotated[str, typer.Option(help="grid or tpe.")] = "grid",
    prune: PruneOption = True,
    seed: SeedOption = 0,
    data: options.TrainData = None,
    data_dir: options.DataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Train models with many settings, in any number of processes.

    Run the same command again to continue.

    Example: foveal sweep mnist-5k-focus model.patch_size=3,5,7 lr=0.003,0.006
    """
    from foveal.training.sweeps.sweep import pareto_trials, parse_space
    from foveal.training.sweeps.sweep import sweep as run

    results = run(
        recipe,
        parse_space(recipe, choices),
        out,
        trials=trials,
        sampler=sampler,
        prune=prune,
        seed=seed,
        data=data,
        data_dir=data_dir,
        notify=notify,
    )
    if as_json:
        print_json({"out": str(out), "trials": [asdict(trial) for trial in results]})
        return
    for trial in pareto_trials(results):
        print_result(_trial_line(trial))
    print_result(out / "frontier.png")


def _trial_line(trial: "Trial") -> str:
    """Return a trial's accuracy, evidence fraction and settings as a line."""
    settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
    return f"{trial.val_accuracy:.2%} from {trial.evidence_fraction:.1%}: {settings}"
