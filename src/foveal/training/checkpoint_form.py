"""Checkpoint validation: keys, types, shapes and settings must match those of this run.

A checkpoint may be damaged, belong to another run or come from someone else. It is checked before
Lightning restores it, which would fail later and less clearly, or accept harmful values.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from packaging.version import InvalidVersion, Version
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.training.objectives.objective import Objective

# Settings of optimizers and schedules that change during training; the recipe fixes all others.
_VARYING_SETTINGS = {"lr", "betas", "momentum", "last_epoch", "_step_count", "_last_lr"}
_MAX_COUNT = 2**40  # upper limit of counts of steps or batches


@dataclass(frozen=True)
class CheckpointForm:
    """The form that the checkpoints of a run must have: their keys, types, shapes and settings.

    Attributes:
        trainer: the trainer that resumes from the checkpoint.
        module: the module that is trained.
        batches: training batches per epoch.
    """

    trainer: L.Trainer
    module: Objective
    batches: int

    def check(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that this run could have written a checkpoint at the end of one of its epochs.

        Args:
            checkpoint: plain values, as returned by `read_checkpoint`.

        Raises:
            UserError: an entry is missing or different; the message names it, but not the file.
        """
        _check_version(checkpoint.get("pytorch-lightning_version"))
        recipe = checkpoint.get("recipe")
        if recipe is not None and recipe != self.module.recipe.to_dict():
            raise UserError("it was written with other settings")
        for name, expected in self._expected().items():
            if name not in checkpoint:
                raise UserError(f"it has no {name}")
            _check(checkpoint[name], expected, name)
        self._check_optimizers(checkpoint)
        self._check_progress(checkpoint)

    def _expected(self) -> dict[str, Any]:
        """Return the entries whose form does not change during the run."""
        trainer = self.trainer
        weights = self.module.state_dict()
        loops = ("fit", "validate", "test", "predict")
        expected: dict[str, object] = {
            "state_dict": weights,
            "loops": {
                f"{name}_loop": getattr(trainer, f"{name}_loop").state_dict() for name in loops
            },
        }
        precision = trainer.precision_plugin.state_dict()
        if precision:
            expected[type(trainer.precision_plugin).__qualname__] = precision
        if self.module.recipe.training.average:
            expected["current_model_state"] = weights
            expected["averaging_state"] = {"n_averaged": torch.tensor(0)}
        return expected

    def _check_optimizers(self, checkpoint: Mapping[str, Any]) -> None:
        """Check the states of the optimizers and of their learning-rate schedules."""
        optimizers, schedules = _new_optimizers(self.module)
        _check(checkpoint.get("lr_schedulers"), [s.state_dict() for s in schedules], "schedule")
        for state in _mappings(checkpoint["lr_schedulers"]):
            if state.get("last_epoch", 0) > state.get("total_steps", _MAX_COUNT):
                raise UserError("a schedule is beyond its end")
        if isinstance(self.trainer.strategy, FSDPStrategy):
            return  # FSDP stores the states by parameter name, and checks them itself
        states = checkpoint.get("optimizer_states")
        if not isinstance(states, list) or len(states) != len(optimizers):
            raise UserError(f"it lacks the states of {len(optimizers)} optimizers")
        for state, optimizer in zip(states, optimizers, strict=True):
            expected = _state_after_step(optimizer)
            expected_states = _expected_states(expected["state"], state)
            _check(state, {**expected, "state": expected_states}, "optimizer")

    def _check_progress(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that the counters, the curve and the best epoch match the end of one epoch."""
        fit = checkpoint["loops"]["fit_loop"]
        progress = fit["epoch_progress"]["current"]
        epoch = progress["ready"]
        if epoch > self.module.recipe.training.epochs:
            raise UserError(f"it was saved in epoch {epoch}, beyond the end of this run")
        if epoch < 1 or not (
            epoch == progress["started"] == progress["processed"]
            and progress["completed"] in (epoch - 1, epoch)
        ):
            raise UserError("its counts of epochs are inconsistent")
        if set(fit["epoch_loop.batch_progress"]["current"].values()) != {self.batches}:
            raise UserError(f"it was not written after the {self.batches} batches of an epoch")
        states = checkpoint.get("callbacks")
        if not isinstance(states, Mapping):
            raise UserError("it has no callbacks")
        curve = states.get("Curve", {})
        expected_row = {"epoch": 0, **dict.fromkeys((*self.module.columns, "seconds"), 0.0)}
        _check(curve, {"rows": [expected_row] * epoch}, "Curve")
        if [row["epoch"] for row in curve["rows"]] != list(range(epoch)):
            raise UserError("epochs are missing from its curve")
        _check_best(states.get("Checkpoints"), epoch)


def _check_best(best: object, epochs: int) -> None:
    """Check the state of `Checkpoints`: the best of the first `epochs` epochs, and its score."""
    if not isinstance(best, Mapping) or set(best) != {"epoch", "score"}:
        raise UserError("it has no best epoch")
    if type(best["epoch"]) is not int or not 0 <= best["epoch"] < epochs:
        raise UserError(f"its best epoch is {best['epoch']!r:.40}")
    if type(best["score"]) is not float or math.isnan(best["score"]):
        raise UserError(f"its best score is {best['score']!r:.40}")


def _check_version(version: object) -> None:
    """Check the version of Lightning that wrote a checkpoint."""
    try:
        is_old = not isinstance(version, str) or Version(version) < Version("2")
    except InvalidVersion:
        is_old = True
    if is_old:
        raise UserError("it was not written by Lightning 2 or later")


def _check(actual: object, expected: object, path: str) -> None:
    """Check that nested values match the expected ones in type, keys, length and shape.

    Settings of optimizers and schedules must be equal, except those that change during training,
    which may have any value in range.

    Args:
        actual: nested values from a checkpoint.
        expected: the values that this run expects; of tensors, only shape and type matter.
        path: dotted keys that lead to the values, for the message.

    Raises:
        UserError: a value differs; the message gives the path of the first one.
    """
    if isinstance(expected, Tensor):
        if not isinstance(actual, Tensor) or (
            (actual.shape, actual.dtype) != (expected.shape, expected.dtype)
        ):
            raise UserError(f"{path} has a different shape or type")
    elif isinstance(expected, Mapping):
        if not isinstance(actual, Mapping) or set(actual) != set(expected):
            raise UserError(f"{path} has different keys")
        for key in expected:
            _check(actual[key], expected[key], f"{path}.{key}")
    elif isinstance(expected, list | tuple):
        if type(actual) is not type(expected) or len(actual) != len(expected):
            raise UserError(f"{path} has a different length")
        name = path.rpartition(".")[2]
        for index, (item, expected_item) in enumerate(zip(actual, expected, strict=True)):
            inner = f"{path}.{index}.{name}" if name in _VARYING_SETTINGS else f"{path}.{index}"
            _check(item, expected_item, inner)
    else:
        _check_scalar(actual, expected, path)


def _check_scalar(actual: object, expected: object, path: str) -> None:
    """Check the type of a value, and the value itself unless it changes during training.

    Numbers must be in range, except those in the learning curve, which may be NaN.
    """
    may_differ = path.startswith(("loops", "Curve")) or path.rpartition(".")[2] in _VARYING_SETTINGS
    if type(expected) is float and type(actual) is int:
        actual = float(actual)
    if type(actual) is not type(expected) or not (may_differ or actual == expected):
        raise UserError(f"{path} is {actual!r:.40}, not {expected!r:.40}")
    if path.startswith("Curve"):
        return
    if type(actual) is int and not -1 <= actual <= _MAX_COUNT:  # a schedule starts at -1
        raise UserError(f"{path} is {actual!r}, which is out of range")
    if type(actual) is float and not math.isfinite(actual):
        raise UserError(f"{path} is {actual!r}, which is not finite")


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """Return all mappings in nested plain values."""
    if isinstance(value, Mapping):
        return [value, *(mapping for part in value.values() for mapping in _mappings(part))]
    if isinstance(value, list | tuple):
        return [mapping for part in value for mapping in _mappings(part)]
    return []


def _new_optimizers(
    module: Objective,
) -> tuple[list[torch.optim.Optimizer], list[torch.optim.lr_scheduler.LRScheduler]]:
    """Return new optimizers, as at the start of a run, and their schedules."""
    configured = module.configure_optimizers()
    settings = configured if isinstance(configured, list) else [configured]
    schedules = [
        entry["lr_scheduler"]["scheduler"] for entry in settings if "lr_scheduler" in entry
    ]
    return [entry["optimizer"] for entry in settings], schedules


def _state_after_step(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state that an optimizer has after one step.

    The step is made on meta tensors, which have a shape but no values. They replace the parameters
    of the optimizer.
    """
    for group in optimizer.param_groups:
        group["params"] = [torch.empty_like(p, device="meta") for p in group["params"]]
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def _expected_states(expected: Mapping[object, object], state: object) -> Mapping[object, object]:
    """Return the expected states of only those parameters that have a state in the checkpoint.

    Parameters that have had no gradient so far have none.
    """
    states = state.get("state") if isinstance(state, Mapping) else None
    keys: Sequence[object] = list(states) if isinstance(states, Mapping) else []
    return {key: value for key, value in expected.items() if key in keys}
