"""The Typer application, with the output functions that commands share."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from foveal.cli.ending import exits_immediately
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import json_text
from foveal.foundation.interrupts import Terminated, terminable


class _Commands(TyperGroup):
    """The group of all commands, which exits with status 130 on Ctrl-C and 143 on SIGTERM."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; report an interruption in one line."""
        try:
            with terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            reason, status = (
                ("terminated", 143) if isinstance(interrupt, Terminated) else ("interrupted", 130)
            )
            # The notes, which `resumable` has added, say how to continue.
            notify(" ".join([f"foveal: {reason}.", *getattr(interrupt, "__notes__", ())]))
            raise typer.Exit(status) from None


app = typer.Typer(
    name="foveal",
    cls=_Commands,
    help="Image classifiers that show what they looked at.\n\n"
    "\b\nStart with:   foveal demo\nYour photos:  foveal train --data photos/",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def notify(text: str) -> None:
    """Print a message on stderr; stdout holds only results."""
    print(printable(text), file=sys.stderr, flush=True)


def print_result(line: str | Path) -> None:
    """Print a line of results on stdout."""
    print(printable(line))


def print_json(values: object) -> None:
    """Print results on stdout as one line of JSON."""
    print(json_text(values))


@exits_immediately
def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's error prints a short message and exits with status 1.

    Args:
        arguments: the arguments after the program's name; None for those of the process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # its encoding may lack characters
    try:
        app(args=arguments, standalone_mode=True)
    except UserError as error:
        notify(f"foveal: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # Python flushes stdout again at exit, which would fail: let it flush to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        notify(f"foveal: {path}{error.strerror or error}")
        sys.exit(1)
