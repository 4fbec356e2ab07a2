"""`foveal compare`."""

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_result
from foveal.foundation.interrupts import resumable

MethodOption = Annotated[
    list[str] | None,
    typer.Option("--method", help="A post-hoc method such as grad-cam; may be repeated."),
]

ExplainOption = Annotated[
    str,
    typer.Option(help="Class whose logit is explained: answer (the prediction) or label."),
]


@app.command()
@resumable("Finished figures are kept: run the same command again to continue.")
def compare(
    models: Annotated[list[str], typer.Argument(help="Zoo names, run folders, or OWNER/NAME.")],
    data: options.Data,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("comparison"),
    images: Annotated[int, typer.Option(help="Images to compare on.", min=2)] = 1000,
    split: options.Split = "test",
    judge: options.Judge = None,
    method: MethodOption = None,
    published: Annotated[int, typer.Option(help="Images for the Quantus metrics.", min=0)] = 0,
    explain: ExplainOption = "answer",
    boxes: options.Boxes = None,
    masks: options.Masks = None,
    groups: options.Groups = None,
    data_dir: options.DataDir = None,
    seed: Annotated[int, typer.Option(help="Seed for images, probes and pairs.")] = 0,
) -> None:
    """Measure models and explanations side by side; write a report.

    Finished figures are kept: run the same command again to continue.

    Example: foveal compare mnist-focus mnist-cnn --data mnist --out comparison
    """
    from foveal.evaluation.compare import compare as run
    from foveal.evaluation.report.compare_page import write_comparison
    from foveal.foundation.progress import progress_bar

    with progress_bar() as progress:
        comparison = run(
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
            notify=notify,
        )
        page = write_comparison(comparison, out)
    print_result(page)
