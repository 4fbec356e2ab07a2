"""Arguments and options that commands share, as annotations."""

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A zoo name, run folder, OWNER/NAME, or .onnx file.")]
Data = Annotated[
    str, typer.Option("--data", help="A dataset (mnist-5k, mnist, …), a folder, or hf:OWNER/NAME.")
]
TrainData = Annotated[
    str | None, typer.Option("--data", help="A dataset or folder instead of the recipe's.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="FOVEAL_DATA", help="Folder of the named datasets.", show_envvar=True),
]
Split = Annotated[str, typer.Option("--split", help="train, val or test.")]
Judge = Annotated[
    str | None, typer.Option("--judge", help="Model that judges the evidence. Default: the zoo's.")
]
Boxes = Annotated[
    Path | None,
    typer.Option("--boxes", help="Boxes: CSV (file,x1,y1,x2,y2) or folder of VOC files."),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Masks: a folder with the layout of the image folder."),
]
Groups = Annotated[
    str | None,
    typer.Option("--groups", help="FILE.csv or REGEX: images that must stay in one split."),
]
Runtime = Annotated[str, typer.Option("--runtime", help="Runtime: torch or onnx.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
