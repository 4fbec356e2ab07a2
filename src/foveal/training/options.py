"""Options of a training run: resuming, hardware, precision and reporting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveal.foundation.errors import unknown_name
from foveal.training.distribution.devices import Devices

if TYPE_CHECKING:
    from lightning import Callback

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # pure half precision trains poorly


@dataclass(frozen=True)
class Options:
    """Options of a training run that are not part of its recipe.

    Attributes:
        resume: continue from the last checkpoint in the folder, if there is one.
        machines: devices to train on.
        precision: one of `PRECISIONS`, which are Lightning's names.
        progress: whether to show a progress bar on stderr.
        callbacks: Lightning callbacks in addition to the built-in ones.
        time_left: called after the first epoch with a line on the remaining time.
        notify: called with a line per checkpoint that cannot be used.

    Raises:
        UserError: unknown precision.
    """

    resume: bool
    machines: Devices
    precision: str
    progress: bool
    callbacks: "Sequence[Callback]"
    time_left: Callable[[str], None] | None
    notify: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
