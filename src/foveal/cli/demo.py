"""`foveal demo`."""

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import app, notify, print_result


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("report"),
) -> None:
    """Train two models on real digits offline; show where they look.

    Example: foveal demo --out report
    """
    from foveal.workflows.demo import run_demo

    print_result(run_demo(out, notify))
