"""Progress bars on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from foveal.foundation.escaping import printable

if TYPE_CHECKING:
    from rich.progress import TextColumn


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar during the block.

    The yielded function updates it; it takes a description, the number of steps done, and the
    total number of steps.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    columns = (_text_column(), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, steps: bar.update(
            task, description=printable(what), completed=done, total=steps
        )


@contextmanager
def rate_bar(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar with the rate and the time left during the block.

    The yielded function advances it by a number of steps.

    Args:
        what: name of what is counted, such as `images`.
        total: number of all steps.
        done: number of steps that are done before the block.
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
    seconds = 60  # over which the rate is averaged
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=seconds) as bar:
        task = bar.add_task(printable(what), total=total, completed=done)
        yield lambda steps: bar.advance(task, steps)


def _text_column() -> "TextColumn":
    """Return the column of the description, in which nothing is interpreted as markup."""
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)
