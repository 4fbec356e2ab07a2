"""Options of a training run: resuming, hardware, precision and reporting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foveal.foundation.errors import unknown_name
from foveal.training.distribution.devices import Devices

if TYPE_CHECKING:
    from lightning import Callback

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # no pure half precision, which trains poorly


@dataclass(frozen=True)
class Options:
    """Options of a training run that are not part of its recipe.

    `train` builds them from its arguments, and the functions that it calls share them.

    Attributes:
        resume: whether to continue from the last checkpoint in the folder, if there is one.
        devices: devices to train on, and how they share the work.
        precision: one of `PRECISIONS`, which are Lightning's names.
        progress: whether to show a progress bar on stderr.
        callbacks: Lightning callbacks in addition to the built-in ones.
        notify: called with lines about the data, steps that take minutes, and the time that remains
            after the first epoch; None to report none of them.
        warn: called with a line for each file that cannot be used, such as a checkpoint, and if
            the pretrained backbone had to be replaced.

    Raises:
        UserError: unknown precision.
    """

    resume: bool
    devices: Devices
    precision: str
    progress: bool
    callbacks: "Sequence[Callback]"
    notify: Callable[[str], None] | None
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
