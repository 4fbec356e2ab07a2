"""`foveal predict`."""

from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import Runtime, app, say, show
from foveal.foundation.interrupts import resumable


@app.command()
@resumable("Finished shards are kept: give the same command with --resume to go on.")
def predict(
    model: Annotated[
        str, typer.Argument(help="A zoo name, run folder, OWNER/NAME, or .onnx file.")
    ],
    source: Annotated[
        str, typer.Argument(help="A folder, file, glob, Parquet, hf:OWNER/NAME, or a URL.")
    ],
    out: Annotated[Path, typer.Option(help="FILE.parquet, or a folder for shards.")],
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster, HOST:PORT or auto; else this machine.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Draw a picture of each too.")] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images at a time; by their size if not given.", min=1)
    ] = None,
    shard_size: Annotated[int, typer.Option(help="Images in a shard.", min=1)] = 2048,
    workers: Annotated[
        int | None, typer.Option(help="Models at work; one a CPU if not given.", min=1)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runtime: Runtime = "torch",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Predict any number of images into Parquet, one row an image.

    Example: foveal predict mnist-focus digits/ --out digits.parquet
    """
    from foveal.deployment.batch import predict as run
    from foveal.foundation.progress import rate_bar

    found = run(
        model,
        source,
        out,
        engine=engine,
        address=address,
        resume=resume,
        explain=explain,
        batch_size=batch_size,
        shard_size=shard_size,
        workers=workers,
        device=device,
        runtime=runtime,
        bar=None if quiet else rate_bar,
    )
    rate = f", {found.new / found.seconds:,.0f} a second" if found.new else ""
    say(f"{found.images:,} images, {found.new:,} of them now, in {found.seconds:.1f} s{rate}.")
    if found.resized and found.size:
        height, width = found.size
        say(f"{found.resized:,} were resized to {height}x{width}, as {model} expects.")
    if found.noted:
        say(f"{found.noted:,} were read by a guess: see the column note.")
    if found.passed_over:
        say(f"{found.passed_over}.")
    if found.errors:
        say(f"{found.errors:,} could not be read: see the column error.")
    show(found.out)
    if found.errors == found.images:
        raise typer.Exit(1)
