"""The application that commands register with, and what they share."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from foveal.cli.ending import ends_at_once
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import json_text
from foveal.foundation.interrupts import Terminated, terminable


class _Commands(TyperGroup):
    """The commands, which Ctrl-C ends with status 130 and SIGTERM with 143, and a line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            with terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            how, status = (
                ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
            )
            say(" ".join([f"foveal: {how}.", *getattr(stop, "__notes__", ())]))
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

DataOption = Annotated[
    str, typer.Option("--data", help="A dataset (mnist-5k, mnist, …), a folder, or hf:OWNER/NAME.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="FOVEAL_DATA", help="Where named datasets lie.", show_envvar=True),
]
BoxesOption = Annotated[
    Path | None,
    typer.Option("--boxes", help="Boxes: a CSV (file,x1,y1,x2,y2) or a folder of VOC."),
]
MasksOption = Annotated[
    Path | None,
    typer.Option("--masks", help="Masks: a folder laid out as that of the images."),
]
GroupsOption = Annotated[
    str | None,
    typer.Option("--groups", help="FILE.csv or REGEX of what no split divides."),
]
Runtime = Annotated[str, typer.Option("--runtime", help="What runs the model: torch or onnx.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def say(text: str) -> None:
    """Print a line for people: on stderr, so that stdout holds results alone."""
    print(printable(text), file=sys.stderr, flush=True)


def show(line: str | Path) -> None:
    """Print a line of results on stdout."""
    print(printable(line))


def show_json(values: object) -> None:
    """Print results on stdout as one line of JSON."""
    print(json_text(values))


@ends_at_once
def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's error is one line and exit status 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not all encodings have all
    try:
        app(args=arguments, standalone_mode=True)
    except UserError as error:
        say(f"foveal: {error}")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        say(f"foveal: {error.filename or 'file'}: {error.strerror or error}")
        sys.exit(1)
