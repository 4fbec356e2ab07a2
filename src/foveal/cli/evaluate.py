"""`foveal evaluate`."""

from typing import Annotated

import typer

from foveal.cli.app import (
    AsJson,
    BoxesOption,
    DataDir,
    DataOption,
    GroupsOption,
    MasksOption,
    Runtime,
    app,
    say,
    show,
    show_json,
)
from foveal.foundation.errors import UserError


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A zoo name, run folder, OWNER/NAME, or .onnx file.")
    ],
    data: DataOption,
    data_dir: DataDir = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A model to judge the evidence; the zoo's if not given.")
    ] = None,
    boxes: BoxesOption = None,
    masks: MasksOption = None,
    groups: GroupsOption = None,
    seed: Annotated[int, typer.Option(help="Seed of probes and pairs.")] = 0,
    card: Annotated[bool, typer.Option("--card", help="Write the figures into the card.")] = False,
    runtime: Runtime = "torch",
    as_json: AsJson = False,
) -> None:
    """Measure accuracy, cost and honesty on a dataset.

    Example: foveal evaluate mnist-focus --data mnist --json
    """
    from foveal import zoo
    from foveal.cli.tables import figure_lines
    from foveal.evaluation.evaluate import evaluate_on

    if card and (runtime != "torch" or model.endswith(".onnx")):
        raise UserError(
            "A card keeps PyTorch's figures: leave out --card, or take --runtime torch."
        )
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
        say=say,
        runtime=runtime,
    )
    if card:
        from foveal.foundation.model_files import write_card

        folder = zoo.folder(model)
        write_card(folder, {**zoo.card(model), "figures": figures})
    if as_json:
        show_json(figures)
        return
    for line in figure_lines(figures):
        show(line)
