"""Lightning callbacks: learning curve, progress bar, remaining time, averaged weights, signals."""

import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, update_bn

from foveal.foundation.files import write_text
from foveal.training.objectives.objective import Objective


class Curve(L.Callback):
    """Writes metrics.csv, with a row per epoch.

    The rows are part of a checkpoint, so that a resumed run continues them.

    Args:
        path: path of the file.
        columns: names of the figures that the module logs, in the order of the columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path = path
        self.columns = columns
        self.rows: list[dict[str, float]] = []
        self.start_time = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the time at which the epoch starts."""
        self.start_time = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row of the epoch that just ended, and write the file."""
        row: dict[str, float] = {"epoch": trainer.current_epoch}
        for name in self.columns:
            row[name] = round(float(trainer.callback_metrics[name]), 6)
        row["seconds"] = round(time.perf_counter() - self.start_time, 3)
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write()

    def _write(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, ["epoch", *self.columns, "seconds"])
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        """Return the rows, which Lightning stores in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, list[dict[str, float]]]) -> None:
        """Restore the rows from a checkpoint."""
        self.rows = list(state_dict["rows"])


class Progress(RichProgressBar):
    """Lightning's progress bar on stderr, without the version number of the logger."""

    def __init__(self) -> None:
        super().__init__(leave=False, console_kwargs={"stderr": True})

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the figures shown next to the bar."""
        figures = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in figures.items() if name != "v_num"}


class TimeLeft(L.Callback):
    """Estimates the remaining time once, after the first epoch of this process.

    Args:
        notify: called with a line that gives the time of an epoch and the remaining time.
    """

    def __init__(self, notify: Callable[[str], None]):
        self.notify = notify
        self.start_time: float | None = None
        self.is_reported = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the time at which the first epoch starts."""
        if self.start_time is None:
            self.start_time = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the remaining time, unless it was reported or this was the last epoch."""
        epochs_left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        if (
            self.is_reported
            or self.start_time is None
            or epochs_left < 1
            or not trainer.is_global_zero
        ):
            return
        self.is_reported = True
        seconds = time.perf_counter() - self.start_time
        remaining = duration(seconds * epochs_left)
        self.notify(f"One epoch took {duration(seconds)}: about {remaining} left.")


def duration(seconds: float) -> str:
    """Return a number of seconds as text, such as `0.4 s`, `12 s`, `7 min` or `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


class AveragedWeights(WeightAveraging):
    """Keeps a moving average of the weights, which is validated and saved as the model's weights.

    Args:
        decay: decay of the average per step: the fraction of the old average in the new one.
        images: uint8 images (N, C, H, W) on which the statistics of batch normalisation are
            measured before each validation. If there are none, the statistics are averaged like the
            weights.
        batch_size: maximum number of images per pass.
    """

    def __init__(self, decay: float, images: Tensor, batch_size: int):
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        batch_count = -(-len(images) // batch_size)  # rounded up
        self.batches = images.tensor_split(batch_count) if len(images) else ()

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Switch to the averaged weights, and measure their batch-normalisation statistics."""
        super().on_validation_epoch_start(trainer, pl_module)
        assert isinstance(pl_module, Objective)
        if self.batches:
            batches = (pl_module.floats(batch.to(pl_module.device)) for batch in self.batches)
            update_bn(batches, pl_module.model)


class RestoreSigterm(L.Callback):
    """Restores the SIGTERM handler that was set before Lightning replaced it.

    Lightning's own handler waits for all processes, then ends the run as if training were complete.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restore the previous handler: Lightning sets its own just before this call."""
        if threading.current_thread() is threading.main_thread() and callable(self.handler):
            signal.signal(signal.SIGTERM, self.handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise their usual exceptions from a block that runs Lightning.

    Without it, Lightning exits with status 1 after Ctrl-C and ignores any further Ctrl-C, and it
    exits with status 0 after SIGTERM.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
        SystemExit: the process received SIGTERM; the status is 143.
    """
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException:
        raise SystemExit(143) from None
    except SystemExit as error:  # Lightning raises it while it handles a KeyboardInterrupt
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        if previous is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)


def loggers(out: Path) -> list[Logger]:
    """Return a list of the TensorBoard logger, which is empty if TensorBoard is not installed.

    Lightning's CSV logger is not needed, because `Curve` writes metrics.csv.
    """
    if find_spec("tensorboard") is None:
        return []
    return [TensorBoardLogger(out, name="", version="tensorboard")]
