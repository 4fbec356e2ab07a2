"""`foveal export`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_result
from foveal.foundation.errors import UserError
from foveal.foundation.interrupts import resumable

if TYPE_CHECKING:
    from foveal.deployment.onnx import Exported
    from foveal.models import ImageModel


@app.command()
@resumable("Run the same command again to export.")
def export(
    model: Annotated[str, typer.Argument(help="A zoo name, a run folder, or OWNER/NAME.")],
    out: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH in pixels. Default: the model's own.")
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Quantise to 8 bits; fails if this costs more than 0.2 points of accuracy.",
        ),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Data to calibrate --int8 on. Default: the dataset on the model's card."),
    ] = None,
    data_dir: options.DataDir = None,
) -> None:
    """Write a model as ONNX, including its explanations.

    Writes one file. High-resolution models also get NAME-patches.onnx next to it, and
    NAME-regions.onnx if they have regions.

    Example: foveal export mnist-focus --out mnist-focus.onnx
    """
    from foveal import zoo
    from foveal.deployment.onnx import exported, write_onnx

    network = zoo.load(model)
    exported_model = exported(network, _parse_size(size))
    if int8:
        data_name = data or zoo.card(model).get("recipe", {}).get("data", {}).get("name")
        if not data_name:
            raise UserError("Give --data with the images to calibrate --int8 on.")
        exported_model = _quantise(network, exported_model, data_name, data_dir)
    # `beside` holds the additional graphs of a high-resolution model, written next to `out`.
    write_onnx(exported_model.graph, out, exported_model.beside)
    print_result(out)


def _quantise(
    network: "ImageModel", float_model: "Exported", data_name: str, data_dir: Path | None
) -> "Exported":
    """Return an exported model in 8-bit integers, and report its accuracy.

    Args:
        network: the model.
        float_model: the exported model in floats.
        data_name: the dataset whose training images calibrate the integers, and on whose validation
            images the accuracy is measured.
        data_dir: folder of the named datasets.

    Raises:
        UserError: more than 0.2 points of accuracy are lost.
    """
    from foveal.datasets import load_images, load_large
    from foveal.deployment.onnx import Exported
    from foveal.deployment.onnx.int8 import as_int8
    from foveal.deployment.onnx.large_int8 import CALIBRATION_IMAGES, as_int8_large
    from foveal.models.abilities import Ability

    if Ability.IN_PART in network.abilities:
        train = load_large(data_name, "train", limit=CALIBRATION_IMAGES, data_dir=data_dir)
        val = load_large(data_name, "val", data_dir=data_dir)
        quantised = as_int8_large(float_model, train, val)
    else:
        load_split = partial(
            load_images,
            data_name,
            size=network.inputs.size,
            channels=network.in_channels,
            data_dir=data_dir,
        )
        quantised = as_int8(float_model.graph, load_split("train"), load_split("val"))
    # The part is `all`, or `classifier` if the detector stays in floats.
    notify(
        f"int8 ({quantised.part}): {quantised.accuracy:.2%} on the validation images of "
        f"{data_name}, {quantised.float_accuracy:.2%} in floats"
    )
    return Exported(quantised.graph, quantised.beside)


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """Return the height and width in a text such as `28x28`; None for None."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(
        side.isascii() and side.isdigit() and int(side) for side in sides
    ):
        raise UserError(f"Expected --size such as 28x28 (height x width), but got {text!r}.")
    return int(sides[0]), int(sides[1])
