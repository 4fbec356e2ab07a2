"""Checkpoints of a run: one of the last epoch and one of the best epoch, known by their names."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from foveal.foundation.errors import UserError
from foveal.foundation.interrupts import deferred_signals
from foveal.training.checkpoint_file import read_checkpoint

LAST = "last.ckpt"
_BEST = re.compile(r"best-(\d{4,9})\.ckpt")
Check = Callable[[Mapping[str, object]], None]  # raises a UserError for a checkpoint of another run


class Best(NamedTuple):
    """The index of the best epoch so far, from 0, and its score; a higher score is better."""

    epoch: int
    score: float


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after each epoch, and `best-EPOCH.ckpt` after the best one so far.

    The state of this callback in a checkpoint is the best epoch and its score, not a path: a run
    folder may be moved, and a checkpoint must not decide which files are read or deleted.

    Args:
        folder: folder of the checkpoints.
        monitor: the column by which the best epoch is chosen.
        mode: whether the best epoch has the `max` or the `min` of that column.
        check: raises a UserError for a checkpoint of another run.
        notify: called with a line if the checkpoint of the best epoch cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        mode: str,
        check: Check,
        notify: Callable[[str], None],
    ):
        self.folder, self.monitor = folder, monitor
        self.sign = 1 if mode == "max" else -1
        self.best: Best | None = None
        self.check, self.notify = check, notify

    def path(self, epoch: int) -> Path:
        """Return the path of the checkpoint of a best epoch."""
        return self.folder / f"best-{epoch:04d}.ckpt"

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoints of the epoch that just ended."""
        score = self.sign * float(trainer.callback_metrics[self.monitor])
        if score != score:  # NaN
            score = float("-inf")
        is_better = self.best is None or score > self.best.score
        with deferred_signals():
            if trainer.strategy.broadcast(is_better):
                self.best = Best(trainer.current_epoch, score)
                trainer.save_checkpoint(self.path(trainer.current_epoch))
                if trainer.is_global_zero:
                    self._delete_others(self.path(trainer.current_epoch))
            trainer.save_checkpoint(self.folder / LAST)

    def _delete_others(self, best: Path) -> None:
        """Delete the checkpoints of earlier best epochs."""
        for path in best_paths(self.folder):
            if path != best:
                path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, object]:
        """Return the best epoch and its score, which Lightning stores in the checkpoint."""
        return {} if self.best is None else self.best._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best epoch from a checkpoint, if that epoch's own file can be used."""
        best = Best(**state_dict)
        path = self.path(best.epoch)
        try:
            self.check(read_checkpoint(path))
        except UserError as error:
            self.notify(
                f"{path} cannot be used ({error}): the best of the remaining epochs is kept."
            )
        else:
            self.best = best

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remove the states of Lightning's own checkpoint callbacks from a checkpoint, in place.

        Lightning would delete the files whose paths they contain.
        """
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                checkpoint["callbacks"].pop(callback.state_key, None)


def best_paths(folder: Path) -> list[Path]:
    """Return the checkpoints of best epochs in a folder, the latest first."""
    paths = [path for path in folder.glob("best-*.ckpt") if _BEST.fullmatch(path.name)]
    return sorted(paths, key=lambda path: int(path.stem.rpartition("-")[2]), reverse=True)


def checkpoint_to_resume(folder: Path, check: Check, notify: Callable[[str], None]) -> Path | None:
    """Return the latest usable checkpoint of a folder, or None if there are no checkpoints.

    Args:
        folder: folder of the checkpoints.
        check: raises a UserError for a checkpoint of another run.
        notify: called with a line if newer checkpoints cannot be used, with the reasons.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    reasons = []
    for path in (folder / LAST, *best_paths(folder)):
        if not path.exists() and not path.is_symlink():
            continue
        try:
            check(read_checkpoint(path))
        except UserError as error:
            reasons.append(f"{path.name}: {error}")
            continue
        if reasons:
            notify(f"Resuming from {path}, as newer ones cannot be used ({'; '.join(reasons)}).")
        return path
    if reasons:
        raise UserError(
            f"No checkpoint in {folder} can be used ({'; '.join(reasons)}): delete that folder to "
            "start again, or use another --out."
        )
    return None
