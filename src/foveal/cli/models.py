"""`foveal models`."""

import shutil
from typing import Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_json, print_result


@app.command()
def models(
    all_figures: Annotated[
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
        print_json(cards)
        return
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns)
    for line in zoo_lines(cards, None if all_figures else width):
        print_result(line)
    if not all_figures:
        notify("All figures: foveal models --all, or --json.")
