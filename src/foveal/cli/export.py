"""`foveal export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from foveal.cli.app import DataDir, app, say
from foveal.errors import UserError


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels; what the model expects by default.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit numbers, if 0.2 points of accuracy are enough.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="What --int8 is calibrated on; the card's by default.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write a model as one ONNX file, which answers and explains.

    Example: foveal export mnist-focus --out mnist-focus.onnx
    """
    from foveal import zoo
    from foveal.export import onnx_graph, write_onnx

    network = zoo.load(model)
    graph = onnx_graph(network, _size(size))
    if int8:
        from foveal.data import load_images
        from foveal.export.int8 import as_int8

        source = data or zoo.card(model).get("recipe", {}).get("data", {}).get("name")
        if not source:
            raise UserError("Give --data: images to calibrate --int8 on.")
        shape: dict[str, Any] = {"size": network.inputs.size, "channels": network.in_channels}
        images = [
            load_images(source, part, data_dir=data_dir, **shape) for part in ("train", "val")
        ]
        found = as_int8(graph, *images)
        graph = found.graph
        say(
            f"int8 ({found.part}): {found.accuracy:.2%} on the validation images of {source}, "
            f"{found.float_accuracy:.2%} in floats"
        )
    write_onnx(graph, out)
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
