"""Sweeps: a recipe trained in many ways, and which of them are worth their evidence."""

from collections.abc import Callable, Sequence
from pathlib import Path

import lightning as L
import torch
import yaml

from foveal import zoo
from foveal.datasets import load_images
from foveal.foundation.arguments import shown
from foveal.foundation.errors import UserError
from foveal.foundation.files import parse_yaml
from foveal.metrics.evidence import evidence_fraction
from foveal.training.recipe import load_recipe
from foveal.training.run import train
from foveal.training.sweeps.study import Claim, Study, Trial, combinations

_SAMPLE = 1_000  # validation images that the evidence is measured on


def parse_space(recipe: str | Path, choices: Sequence[str]) -> dict[str, list[str]]:
    """Return the values to try of each key, from `key=a,b,c`; commas in brackets do not divide.

    Raises:
        UserError: no choice, a key twice, or a value that the recipe does not take.
    """
    space: dict[str, list[str]] = {}
    for choice in choices:
        key, equals, text = choice.partition("=")
        if not equals or not key or not text:
            raise UserError(f"Expected key=a,b,c, but got {choice!r}.")
        if key in space:
            raise UserError(f"{key} is given twice: list its values in one, {key}=a,b,c.")
        space[key] = _values(text)
        for value in space[key]:
            load_recipe(recipe, [f"{key}={value}"])
    if not space:
        raise UserError("A sweep needs something to vary, such as lr=0.001,0.003.")
    return space


def _values(text: str) -> list[str]:
    try:
        found = parse_yaml(f"[{text}]")
    except UserError as error:
        raise UserError(f"Cannot read the values {shown(text)}: {error}") from None
    dump = [yaml.safe_dump(value, default_flow_style=True, width=10**6) for value in found]
    return [value.removesuffix("\n").removesuffix("\n...") for value in dump]


class _Watch(L.Callback):
    """Reports each epoch's validation accuracy, and ends a training that is not worth going on."""

    def __init__(self, claim: Claim):
        self.claim = claim
        self.pruned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the epoch that has ended."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        if self.claim.report(trainer.current_epoch, accuracy) and not last:
            self.pruned = trainer.should_stop = True


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
    say: Callable[[str], None] = print,
) -> list[Trial]:
    """Train a recipe in many ways until the study has enough trials, and return all of them.

    Any number of processes may work on one study at a time: give each the same command.

    Args:
        recipe: a name, or a YAML file.
        space: values to try of each key, as `parse_space` returns them.
        out: folder of the study: `study.sqlite3`, `frontier.png` and a run folder for each trial.
        trials: that the study is to have, failed ones aside; None for one of each combination.
        sampler: `grid` tries each combination once, `tpe` learns which to try next.
        prune: end trials whose accuracy is below the median of the others' at the same epoch.
        seed: of the sampler.
        data: a dataset or folder in place of the recipe's.
        data_dir: where named datasets lie.
        say: told of each trial that ends.

    Raises:
        UserError: Optuna is not installed, the folder's study is of something else, the recipe
            trains no classifier, or every trial of this process has failed.
    """
    if load_recipe(recipe).model.get("name") == "reconstructor":
        raise UserError("A sweep compares accuracies, and this recipe trains no classifier.")
    study = Study(Path(out), space, {"recipe": str(recipe), "data": data}, sampler, seed, prune)
    wanted = trials or len(combinations(space))
    failures: list[UserError] = []
    while len(failures) < wanted:  # what fails once for its settings would fail again
        with study.claimed(wanted) as claim:
            if claim is None:
                break
            try:
                _try(study, claim, recipe, data, data_dir, say)
            except UserError as error:
                failures.append(error)
                say(f"trial {claim.number} ({_said(claim.settings)}) failed: {error}")
                study.end(claim, None)
    found = study.trials()
    if failures and not any(trial.val_accuracy is not None for trial in found):
        raise failures[0]
    _draw(found, Path(out) / "frontier.png")
    return found


def _try(
    study: Study,
    claim: Claim,
    recipe: str | Path,
    data: str | None,
    data_dir: str | Path | None,
    say: Callable[[str], None],
) -> None:
    chosen = load_recipe(recipe, [f"{key}={value}" for key, value in claim.settings.items()])
    watch = _Watch(claim)
    run = train(
        chosen, claim.folder, data=data, data_dir=data_dir, progress=False, callbacks=[watch]
    )
    images = load_images(
        data or chosen.data.name,
        "val",
        size=chosen.data.size,
        channels=chosen.data.channels,
        data_dir=data_dir,
    )
    step = -(-len(images) // _SAMPLE)
    some = images.subset(torch.arange(0, len(images), step))
    share, accuracy = evidence_fraction(zoo.load(run), some), zoo.card(run)["val_accuracy"]
    claim.note(evidence_fraction=share)
    study.end(claim, accuracy, watch.pruned)
    end = f"accuracy {accuracy:.2%}, evidence {share:.1%}"
    say(f"trial {claim.number} ({_said(claim.settings)}): {end}{', pruned' * watch.pruned}")


def _said(settings: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def best_for_their_evidence(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials than which none is more accurate with as little evidence, least first."""
    measured = [t for t in trials if t.val_accuracy is not None and t.evidence_fraction is not None]
    best: list[Trial] = []
    for trial in sorted(measured, key=lambda t: (t.evidence_fraction, -(t.val_accuracy or 0))):
        if not best or (trial.val_accuracy or 0) > (best[-1].val_accuracy or 0):
            best.append(trial)
    return best


def _draw(trials: Sequence[Trial], path: Path) -> None:
    """Draw accuracy against evidence of all trials; those on the frontier are named and joined."""
    from foveal.plotting import INK, frontier, save_figure

    best = best_for_their_evidence(trials)
    points: list[tuple[str, float, float]] = []
    for trial in trials:
        if trial.evidence_fraction is not None and trial.val_accuracy is not None:
            name = _said(trial.settings) if trial in best else ""
            points.append((name, trial.evidence_fraction, trial.val_accuracy))
    figure = frontier(points, split="validation")
    line = [(100 * (t.evidence_fraction or 0), 100 * (t.val_accuracy or 0)) for t in best]
    figure.axes[0].step(*zip(*line, strict=True), where="post", color=INK, lw=1, zorder=0)
    save_figure(figure, path)
