"""`foveal export`."""

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import app
from foveal.errors import UserError


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels; what the model expects by default.")
    ] = None,
) -> None:
    """Write a model as one ONNX file, which runs, explains and is measured without its weights.

    Example: foveal export mnist-focus --out mnist-focus.onnx
    """
    from foveal import zoo
    from foveal.export import onnx_graph, write_onnx

    write_onnx(onnx_graph(zoo.load(model), _size(size)), out)
    print(out)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(
        side.isascii() and side.isdigit() and int(side) for side in sides
    ):
        raise UserError(f"Expected --size such as 28x28 (height x width), but got {text!r}.")
    return int(sides[0]), int(sides[1])
