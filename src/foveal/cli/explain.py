"""`foveal explain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveal.cli import options
from foveal.cli.app import app, say, show, show_json
from foveal.foundation.escaping import path_text


@app.command()
def explain(
    model: options.Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="model for the model's own explanation (keypoints, attention maps or exact "
            "contributions), contributions, or a post-hoc method such as grad-cam."
        ),
    ] = "model",
    runtime: options.Runtime = "torch",
    as_json: options.AsJson = False,
) -> None:
    """Show what a model looks at: keypoints, patches and classes.

    Pictures are drawn on the original image, up to 1,600 pixels along its longer side.

    Example: foveal explain mnist-focus digit.png --out pictures
    """
    from foveal.workflows.explain import explain_files

    answers, failed = explain_files(model, images, out, say, method, runtime)
    if as_json:
        images_json = [{**answer, "path": path_text(answer["path"])} for answer in answers]
        show_json({"model": model, "images": images_json})
    else:
        for answer in answers:
            if "error" not in answer:
                picture = f"  {answer['picture']}" if "picture" in answer else ""
                show(f"{answer['path']}: {_result(answer)}{picture}")
    if failed:
        raise typer.Exit(1)


def _result(answer: dict[str, Any]) -> str:
    if "probabilities" not in answer:
        return f"reconstructed with a mean squared error of {answer['rebuilding_mse']:.4f}"
    best = answer["probabilities"][0]
    return f"{best['class']} ({best['probability']:.1%})"
