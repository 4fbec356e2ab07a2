"""Progress bars on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foveal.foundation.escaping import printable

if TYPE_CHECKING:
    from rich.progress import TextColumn


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar while the block runs.

    The context yields a function that updates the bar. Its arguments are a description, the number
    of steps that are done, and the total number of steps.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (_text_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(
            task, description=printable(what), completed=done, total=total
        )


@contextmanager
def rate_bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, with the rate and the remaining time, while the block runs.

    The context yields a function that advances the bar. Its argument is the number of steps that
    were done since its last call.

    Args:
        what: name of what is counted, such as `images`.
        total: number of all steps, including those that were done before.
        done: number of steps that were done before the block.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "–/s")

    columns = (_text_column(), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    period = 60  # seconds over which the rate is averaged
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=period) as bar:
        task = bar.add_task(printable(what), total=total, completed=done)
        yield lambda new_steps: bar.advance(task, new_steps)


def _text_column() -> "TextColumn":
    """Return the column of the description, in which nothing is interpreted as markup."""
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)
