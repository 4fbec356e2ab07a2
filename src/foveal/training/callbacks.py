"""What goes along with a training: checkpoints, curves and the progress bar."""

import csv
import os
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

from foveal.training.module import RecipeModule


class Curve(L.Callback):
    """Keeps one row an epoch and writes them to metrics.csv; goes on where a run is resumed.

    Args:
        path: of the file.
        columns: names of what the module logs.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path = path
        self.columns = columns
        self.rows: list[dict[str, float]] = []
        self.started = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        row: dict[str, float] = {"epoch": trainer.current_epoch}
        for name in self.columns:
            row[name] = round(float(trainer.callback_metrics[name]), 6)
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *self.columns, "seconds"])
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(partial, self.path)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows back from a checkpoint."""
        self.rows = list(state_dict["rows"])

    def row_of(self, checkpoint: str, keep: str) -> dict[str, float]:
        """Return the row of the weights that are kept."""
        if keep == "best":
            number = int(Path(checkpoint).stem.rpartition("-")[2])
            return next(row for row in self.rows if row["epoch"] == number)
        return self.rows[-1]


class Progress(RichProgressBar):
    """Lightning's progress bar on stderr, without the logger's version."""

    def __init__(self) -> None:
        super().__init__(leave=False, console_kwargs={"stderr": True})

    def get_metrics(self, *arguments: Any) -> dict[str, Any]:
        """Return what is shown beside the bar."""
        shown = super().get_metrics(*arguments)
        return {name: value for name, value in shown.items() if name != "v_num"}


class TimeLeft(L.Callback):
    """Says once, after the first epoch of this process, how long the others will take.

    Args:
        say: told so.
    """

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.started: float | None = None
        self.said = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the first epoch's clock."""
        if self.started is None:
            self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how long it will take, unless all is done."""
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        if self.said or self.started is None or left < 1 or not trainer.is_global_zero:
            return
        self.said = True
        epoch = time.perf_counter() - self.started
        self.say(f"One epoch took {duration(epoch)}: about {duration(epoch * left)} left.")


def duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `12 s`, `7 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class AveragedWeights(WeightAveraging):
    """A moving average of the weights, which is what is validated and kept.

    Args:
        decay: of the average, at each step.
        images: (N, C, H, W) bytes on which the statistics of batch normalisation are measured
            before each validation; none leaves them averaged.
        batch_size: greatest number of images at a time.
    """

    def __init__(self, decay: float, images: Tensor, batch_size: int):
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.batches = images.tensor_split(-(-len(images) // batch_size)) if len(images) else ()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the averaged weights in place, with statistics of their own."""
        super().on_validation_epoch_start(trainer, pl_module)
        module: Any = pl_module  # a RecipeModule
        if self.batches:
            batches = (module.floats(batch.to(module.device)) for batch in self.batches)
            update_bn(batches, module.model)


def run_callbacks(
    out: Path,
    module: RecipeModule,
    progress: bool,
    average: AveragedWeights | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[list[L.Callback], ModelCheckpoint, Curve]:
    """Return all callbacks of a run, and among them the best checkpoint's and the curve."""
    curve = Curve(out / "metrics.csv", module.columns)  # before the checkpoints, which keep it
    # One for each: Lightning's save_last writes only when there is a new best.
    best = ModelCheckpoint(
        filename="best-{epoch:04d}",
        auto_insert_metric_name=False,
        monitor=module.monitor,
        mode=module.mode,
        **_everywhere(out),
    )
    last = ModelCheckpoint(filename="last", **_everywhere(out))
    callbacks: list[L.Callback] = [curve, best, last]
    if average is not None:
        callbacks.append(average)
    if say is not None:
        callbacks.append(TimeLeft(say))
    if progress:
        callbacks.append(Progress())
    return callbacks, best, curve


def _everywhere(out: Path) -> dict[str, Any]:
    return {
        "dirpath": out / "checkpoints",
        "save_on_train_epoch_end": True,
        "enable_version_counter": False,
    }


def loggers(out: Path) -> list[Logger]:
    """Return the TensorBoard logger, or none where it is not installed; the CSV is the curve's."""
    if find_spec("tensorboard") is None:
        return []
    return [TensorBoardLogger(out, name="", version="tensorboard")]
