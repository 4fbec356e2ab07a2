"""`foveal evaluate`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_json, print_result
from foveal.foundation.errors import UserError


@app.command()
def evaluate(
    model: options.Model,
    data: options.Data,
    data_dir: options.DataDir = None,
    split: options.Split = "test",
    judge: options.Judge = None,
    boxes: options.Boxes = None,
    masks: options.Masks = None,
    groups: options.Groups = None,
    seed: Annotated[int, typer.Option(help="Seed for probes and pairs.")] = 0,
    card: Annotated[
        bool, typer.Option("--card", help="Write the figures to the model's card.")
    ] = False,
    runtime: options.Runtime = "torch",
    as_json: options.AsJson = False,
) -> None:
    """Measure accuracy, cost and honesty on a dataset.

    Example: foveal evaluate mnist-focus --data mnist --json
    """
    from foveal.evaluation.evaluate import evaluate_on

    if card and (runtime != "torch" or model.endswith(".onnx")):
        raise UserError("A card holds PyTorch's figures: omit --card, or use --runtime torch.")
    figures = evaluate_on(
        model,
        data,
        split=split,
        data_dir=data_dir,
        judge=judge,
        boxes=boxes,
        masks=masks,
        groups=groups,
        seed=seed,
        notify=notify,
        runtime=runtime,
    )
    if card:
        _write_to_card(model, figures)
    _print_figures(figures, as_json)


def _write_to_card(model: str, figures: Mapping[str, object]) -> None:
    """Store figures on the model's card, the JSON file next to its weights."""
    from foveal import zoo
    from foveal.foundation.model_files import write_card

    write_card(zoo.folder(model), {**zoo.card(model), "figures": figures})


def _print_figures(figures: Mapping[str, object], as_json: bool) -> None:
    """Print figures as one JSON object, or as one line per figure."""
    from foveal.cli.tables import figure_lines

    if as_json:
        print_json(figures)
        return
    for line in figure_lines(figures):
        print_result(line)
