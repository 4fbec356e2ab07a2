"""Sweeps: a recipe trained with many settings, and the frontier of accuracy and evidence."""

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

_SAMPLE = 1_000  # validation images on which the evidence is measured


def parse_space(recipe: str | Path, choices: Sequence[str]) -> dict[str, list[str]]:
    """Return the values to try per key from `key=a,b,c`; commas in brackets do not separate.

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
    try:
        values = parse_yaml(f"[{text}]")
    except UserError as error:
        raise UserError(f"Cannot read the values {short_repr(text)}: {error}") from None
    dumps = [yaml.safe_dump(value, default_flow_style=True, width=10**6) for value in values]
    return [dump.removesuffix("\n").removesuffix("\n...") for dump in dumps]


class _Pruning(L.Callback):
    """Reports each epoch's validation accuracy, and stops a pruned training run."""

    def __init__(self, claim: Claim):
        self.claim = claim
        self.pruned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch that just ended."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        if self.claim.report(trainer.current_epoch, accuracy) and not is_last:
            self.pruned = trainer.should_stop = True


@dataclass(frozen=True)
class _Inputs:
    """Arguments of `sweep` that all trials share."""

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
    """Train a recipe with many settings until the study has enough trials, and return all trials.

    Any number of processes may work on one study at a time: run the same command in each.

    Args:
        recipe: a name, or a YAML file.
        space: values to try per key, as `parse_space` returns them.
        out: folder of the study: `study.sqlite3`, `frontier.png` and a run folder per trial.
        trials: number of trials, without failed ones; None for one per combination.
        sampler: `grid` tries each combination once, `tpe` learns which to try next.
        prune: whether to stop trials with accuracy below the others' median at the same epoch.
        seed: random seed of the sampler.
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
    _draw(results, Path(out) / "frontier.png")
    return results


def _run_trials(study: Study, count: int, inputs: _Inputs) -> list[Trial]:
    """Train until the study has this number of trials, and return all trials."""
    failures: list[UserError] = []
    while len(failures) < count:  # settings that failed once would fail again
        with study.claimed(count) as claim:
            if claim is None:
                break
            try:
                _run_trial(study, claim, inputs)
            except UserError as error:
                failures.append(error)
                inputs.notify(f"trial {claim.number} ({_text(claim.settings)}) failed: {error}")
                study.end(claim, None)
    trials = study.trials()
    if failures and not any(trial.val_accuracy is not None for trial in trials):
        raise failures[0]
    return trials


def _run_trial(study: Study, claim: Claim, inputs: _Inputs) -> None:
    """Train with the settings of a claimed trial, and record accuracy and evidence."""
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
    step = -(-len(images) // _SAMPLE)
    sample = images.subset(torch.arange(0, len(images), step))
    fraction, accuracy = evidence_fraction(zoo.load(run), sample), zoo.card(run)["val_accuracy"]
    claim.note(evidence_fraction=fraction)
    study.end(claim, accuracy, pruning.pruned)
    summary = f"accuracy {accuracy:.2%}, evidence {fraction:.1%}"
    inputs.notify(
        f"trial {claim.number} ({_text(claim.settings)}): {summary}{', pruned' * pruning.pruned}"
    )


def _text(settings: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def pareto_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that are Pareto-optimal in accuracy and evidence, by rising evidence."""
    measured = [t for t in trials if t.val_accuracy is not None and t.evidence_fraction is not None]
    best: list[Trial] = []
    for trial in sorted(measured, key=lambda t: (t.evidence_fraction, -(t.val_accuracy or 0))):
        if not best or (trial.val_accuracy or 0) > (best[-1].val_accuracy or 0):
            best.append(trial)
    return best


def _draw(trials: Sequence[Trial], path: Path) -> None:
    """Plot accuracy against evidence; trials on the frontier are labelled and joined."""
    from foveal.plotting import INK, frontier, save_figure

    best = pareto_trials(trials)
    points: list[tuple[str, float, float]] = []
    for trial in trials:
        if trial.evidence_fraction is not None and trial.val_accuracy is not None:
            name = _text(trial.settings) if trial in best else ""
            points.append((name, trial.evidence_fraction, trial.val_accuracy))
    figure = frontier(points, split="validation")
    line = [(100 * (t.evidence_fraction or 0), 100 * (t.val_accuracy or 0)) for t in best]
    figure.axes[0].step(*zip(*line, strict=True), where="post", color=INK, lw=1, zorder=0)
    save_figure(figure, path)
