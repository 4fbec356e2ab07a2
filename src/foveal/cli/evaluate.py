"""`foveal evaluate`."""

import json
from typing import Annotated

import typer

from foveal.cli.app import AsJson, DataDir, DataOption, app, say


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    data: DataOption,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A model to judge the evidence; the zoo's if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of probes and pairs.")] = 0,
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure accuracy, cost and honesty on a dataset.

    Example: foveal evaluate mnist-focus --data mnist --json
    """
    from foveal import zoo
    from foveal.evaluation import evaluate_on, format_figures

    figures = evaluate_on(
        model, data, split=split, data_dir=data_dir, judge=judge, seed=seed, say=say
    )
    if card:
        from foveal.training.run import write_json

        folder = zoo.folder(model)
        write_json({**zoo.card(model), "figures": figures}, folder / "card.json")
    print(json.dumps(figures) if as_json else format_figures(figures))
