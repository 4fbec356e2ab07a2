"""`foveal predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foveal.cli import options
from foveal.cli.app import app, notify, print_result
from foveal.foundation.interrupts import resumable

if TYPE_CHECKING:
    from foveal.deployment.batch import Predicted


AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Ray cluster (HOST:PORT or auto). Default: a local cluster."),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option("--batch-size", help="Images per batch. Default: chosen by image size.", min=1),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", help="Parallel models. Default: one per CPU or GPU.", min=1),
]


@app.command()
@resumable("Finished shards are kept: run the same command with --resume to continue.")
def predict(
    model: options.Model,
    source: Annotated[
        str, typer.Argument(help="A folder, file, glob, Parquet, hf:OWNER/NAME, or a URL.")
    ],
    out: Annotated[Path, typer.Option(help="FILE.parquet, or a folder for shards.")],
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: AddressOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also draw each explanation.")] = False,
    batch_size: BatchSizeOption = None,
    shard_size: Annotated[int, typer.Option(help="Images per shard.", min=1)] = 2048,
    workers: WorkersOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runtime: options.Runtime = "torch",
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Predict any number of images and write a Parquet table. It has one row per image.

    Example: foveal predict mnist-focus digits/ --out digits.parquet
    """
    from foveal.deployment.batch import predict as run
    from foveal.foundation.progress import rate_bar

    result = run(
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
    _report(result, model)


def _report(result: "Predicted", model: str) -> None:
    """Print a summary; exit with status 1 if no image could be read."""
    rate = f", {result.new / result.seconds:,.0f} per second" if result.new else ""
    notify(
        f"{result.images:,} images, {result.new:,} of them new, in {result.seconds:.1f} s{rate}."
    )
    if result.resized and result.size:
        height, width = result.size
        notify(f"{result.resized:,} were resized to {height}x{width}, as {model} expects.")
    if result.noted:
        notify(f"{result.noted:,} were read with assumptions: see column `note`.")
    if result.skipped_lines:
        notify(f"{result.skipped_lines}.")
    if result.errors:
        notify(f"{result.errors:,} could not be read: see column `error`.")
    print_result(result.out)
    if result.errors == result.images:
        raise typer.Exit(1)
