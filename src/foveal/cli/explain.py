"""`foveal explain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_json, print_result
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

    results, failed_count = explain_files(model, images, out, notify, method, runtime)
    if as_json:
        records = [{**result, "path": path_text(result["path"])} for result in results]
        print_json({"model": model, "images": records})
    else:
        for result in results:
            if "error" not in result:
                picture = f"  {result['picture']}" if "picture" in result else ""
                print_result(f"{result['path']}: {_result_text(result)}{picture}")
    if failed_count:
        raise typer.Exit(1)


def _result_text(result: dict[str, Any]) -> str:
    """Return the most probable class, or for a model that reconstructs images its error."""
    if "probabilities" not in result:
        return f"reconstructed with a mean squared error of {result['rebuilding_mse']:.4f}"
    top_class = result["probabilities"][0]
    return f"{top_class['class']} ({top_class['probability']:.1%})"
