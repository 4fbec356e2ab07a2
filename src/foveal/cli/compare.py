"""`foveal compare`."""

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import (
    BoxesOption,
    DataDir,
    DataOption,
    GroupsOption,
    MasksOption,
    app,
    say,
    show,
)
from foveal.foundation.interrupts import resumable


@app.command()
@resumable("What was finished is kept: give the same command to go on.")
def compare(
    models: Annotated[list[str], typer.Argument(help="Zoo names, run folders, or OWNER/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("comparison"),
    images: Annotated[int, typer.Option(help="Images to compare on.", min=2)] = 1000,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    judge: Annotated[
        str | None, typer.Option(help="A model to judge the evidence; the zoo's if not given.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="A rival, such as grad-cam; again for others.")
    ] = None,
    published: Annotated[
        int, typer.Option(help="Images for the field's published metrics (Quantus).", min=0)
    ] = 0,
    explain: Annotated[str, typer.Option(help="Whose logit: answer or label.")] = "answer",
    boxes: BoxesOption = None,
    masks: MasksOption = None,
    groups: GroupsOption = None,
    data_dir: DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed of images, probes and pairs.")] = 0,
) -> None:
    """Measure models and explanations side by side; write a report.

    What was finished is kept: give the same command to go on.

    Example: foveal compare mnist-focus mnist-cnn --data mnist --out comparison
    """
    from foveal.evaluation.compare import compare as run
    from foveal.evaluation.report.compare_page import write_comparison
    from foveal.foundation.progress import progress_bar

    with progress_bar() as progress:
        found = run(
            models,
            data,
            out,
            split=split,
            images=images,
            data_dir=data_dir,
            judge=judge,
            methods=method,
            published=published,
            explain=explain,
            boxes=boxes,
            masks=masks,
            groups=groups,
            seed=seed,
            progress=progress,
            say=say,
        )
        page = write_comparison(found, out)
    show(page)
