"""`foveal models`."""

import shutil
from typing import Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, say, show, show_json


@app.command()
def models(
    everything: Annotated[
        bool, typer.Option("--all", help="All figures, however wide the table.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the models of the zoo with their figures.

    Example: foveal models
    """
    from foveal.cli.tables import WIDTH, zoo_lines
    from foveal.evaluation.evaluate import zoo_cards

    cards = zoo_cards()
    if as_json:
        show_json(cards)
        return
    screen = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    for line in zoo_lines(cards, None if everything else screen):
        show(line)
    if not everything:
        say("All figures: foveal models --all, or --json.")
