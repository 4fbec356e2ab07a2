"""Sweeps: models trained from one recipe with many settings, compared by accuracy and evidence.

The evidence is the pixels that a model decides from. A trial is Pareto-optimal, and on the frontier
of the plot, if every other trial with at most as much evidence is less accurate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
import yaml

from foveal import zoo
from foveal.datasets import load_images
from foveal.foundation.arguments import short_repr
from foveal.foundation.errors import UserError
from foveal.foundation.files import parse_yaml
from foveal.metrics.evidence import evidence_fraction
from foveal.training.recipe import load_recipe
from foveal.training.run import train
from foveal.training.sweeps.study import Claim, Study, Trial, combinations

_MAX_SAMPLE = 1_000  # maximum number of validation images on which the evidence is measured


def parse_space(recipe: str | Path, choices: Sequence[str]) -> dict[str, list[str]]:
    """Return the values to try for each key, as YAML text.

    Args:
        recipe: name or YAML file of the recipe, which must accept each of the values.
        choices: texts such as `key=a,b,c`. Commas in brackets belong to a value.

    Raises:
        UserError: no values, a repeated key, or a value that the recipe does not accept.
    """
    space: dict[str, list[str]] = {}
    for choice in choices:
        key, equals, text = choice.partition("=")
        if not equals or not key or not text:
            raise UserError(f"Expected key=a,b,c, but got {choice!r}.")
        if key in space:
            raise UserError(f"{key} is given twice: list all its values together, {key}=a,b,c.")
        space[key] = _values(text)
        for value in space[key]:
            load_recipe(recipe, [f"{key}={value}"])
    if not space:
        raise UserError("Expected at least one key to vary, such as lr=0.001,0.003.")
    return space


def _values(text: str) -> list[str]:
    """Return the values in a text such as `a,b,c`, each as YAML text.

    Raises:
        UserError: the text is not YAML.
    """
    try:
        values = parse_yaml(f"[{text}]")
    except UserError as error:
        raise UserError(f"Cannot read the values {short_repr(text)}: {error}") from None
    dumps = [yaml.safe_dump(value, default_flow_style=True, width=10**6) for value in values]
    return [dump.removesuffix("\n").removesuffix("\n...") for dump in dumps]


class _Pruning(L.Callback):
    """Reports each epoch's validation accuracy to the study, and stops the run if it is pruned.

    Args:
        claim: the trial.

    Attributes:
        pruned: whether the run was stopped early.
    """

    def __init__(self, claim: Claim):
        self.claim = claim
        self.pruned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch that just ended; a run that is complete does not count as pruned."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        if self.claim.report(trainer.current_epoch, accuracy) and not is_last:
            self.pruned = trainer.should_stop = True


@dataclass(frozen=True)
class _Inputs:
    """Arguments of `sweep` that all trials share, and that are described there."""

    recipe: str | Path
    data: str | None
    data_dir: str | Path | None
    notify: Callable[[str], None]


def sweep(
    recipe: str | Path,
    space: dict[str, list[str]],
    out: str | Path,
    *,
    trials: int | None = None,
    sampler: str = "grid",
    prune: bool = True,
    seed: int = 0,
    data: str | None = None,
    data_dir: str | Path | None = None,
    notify: Callable[[str], None] = print,
) -> list[Trial]:
    """Train models with many settings of a recipe, and return all trials of the study, by number.

    Calls with the same folder add trials to the same study, also from several processes at a time.

    Args:
        recipe: name of a recipe, or a YAML file.
        space: values to try for each key, as returned by `parse_space`.
        out: folder of the study: `study.sqlite3`, `frontier.png` and a run folder per trial.
        trials: number of trials, without failed ones; None for one per combination.
        sampler: `grid` tries each combination once, `tpe` learns which to try next.
        prune: whether to stop trials with accuracy below the others' median at the same epoch.
        seed: random seed of `tpe`; 0 for a different one in each process.
        data: a dataset or folder to use instead of the recipe's.
        data_dir: folder of named datasets.
        notify: called with a line when a trial ends.

    Raises:
        UserError: Optuna is not installed, the folder holds another study, the recipe is not for a
            classifier, or every trial of this process failed.
    """
    if load_recipe(recipe).model.get("name") == "reconstructor":
        raise UserError("A sweep compares accuracies, but this recipe does not train a classifier.")
    study = Study(Path(out), space, {"recipe": str(recipe), "data": data}, sampler, seed, prune)
    count = trials or len(combinations(space))
    results = _run_trials(study, count, _Inputs(recipe, data, data_dir, notify))
    _draw_frontier(results, Path(out) / "frontier.png")
    return results


def _run_trials(study: Study, count: int, inputs: _Inputs) -> list[Trial]:
    """Run trials until the study has `count` of them, and return all trials of the study.

    Raises:
        UserError: no trial of the study has an accuracy, and one of this process failed.
    """
    failures: list[UserError] = []
    while len(failures) < count:  # settings that failed would be tried, and fail, again and again
        with study.claimed(count) as claim:
            if claim is None:
                break
            try:
                _run_trial(study, claim, inputs)
            except UserError as error:
                failures.append(error)
                inputs.notify(
                    f"trial {claim.number} ({_settings_text(claim.settings)}) failed: {error}"
                )
                study.end(claim, accuracy=None)
    trials = study.trials()
    if failures and not any(trial.val_accuracy is not None for trial in trials):
        raise failures[0]
    return trials


def _run_trial(study: Study, claim: Claim, inputs: _Inputs) -> None:
    """Train a model with the settings of a trial, and record its accuracy and evidence."""
    overrides = [f"{key}={value}" for key, value in claim.settings.items()]
    recipe = load_recipe(inputs.recipe, overrides)
    data, data_dir = inputs.data, inputs.data_dir
    pruning = _Pruning(claim)
    run = train(
        recipe, claim.folder, data=data, data_dir=data_dir, progress=False, callbacks=[pruning]
    )
    images = load_images(
        data or recipe.data.name,
        "val",
        size=recipe.data.sizing,
        channels=recipe.data.channels,
        data_dir=data_dir,
    )
    step = -(-len(images) // _MAX_SAMPLE)  # rounded up
    sample = images.subset(torch.arange(0, len(images), step))
    fraction = evidence_fraction(zoo.load(run), sample)
    accuracy = zoo.card(run)["val_accuracy"]
    claim.store(evidence_fraction=fraction)
    study.end(claim, accuracy, pruning.pruned)
    pruned_text = ", pruned" if pruning.pruned else ""
    inputs.notify(
        f"trial {claim.number} ({_settings_text(claim.settings)}): accuracy {accuracy:.2%}, "
        f"evidence {fraction:.1%}{pruned_text}"
    )


def _settings_text(settings: dict[str, str]) -> str:
    """Return settings as text, such as `lr=0.01, epochs=3`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def pareto_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that are Pareto-optimal in accuracy and evidence, by ascending evidence."""
    measured = [t for t in trials if t.val_accuracy is not None and t.evidence_fraction is not None]
    optimal: list[Trial] = []
    for trial in sorted(measured, key=lambda t: (t.evidence_fraction, -(t.val_accuracy or 0))):
        if not optimal or (trial.val_accuracy or 0) > (optimal[-1].val_accuracy or 0):
            optimal.append(trial)
    return optimal


def _draw_frontier(trials: Sequence[Trial], path: Path) -> None:
    """Plot the accuracy of trials against their evidence, and write the figure to a file.

    The Pareto-optimal trials are labelled and joined by a line.
    """
    from foveal.plotting import INK, frontier, save_figure

    optimal = pareto_trials(trials)
    points: list[tuple[str, float, float]] = []  # label, evidence and accuracy
    for trial in trials:
        if trial.evidence_fraction is not None and trial.val_accuracy is not None:
            name = _settings_text(trial.settings) if trial in optimal else ""
            points.append((name, trial.evidence_fraction, trial.val_accuracy))
    figure = frontier(points, split="validation")
    steps = [(100 * (t.evidence_fraction or 0), 100 * (t.val_accuracy or 0)) for t in optimal]
    figure.axes[0].step(*zip(*steps, strict=True), where="post", color=INK, lw=1, zorder=0)
    save_figure(figure, path)
