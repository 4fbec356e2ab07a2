"""A run of batch prediction, which writes its results to Parquet files and can be resumed."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TypedDict

from foveal import __version__, zoo
from foveal.deployment import onnx
from foveal.deployment.batch.decoding import Shape
from foveal.deployment.batch.job import Batch, Engine, Job, assemble_shards
from foveal.deployment.batch.listing import Listing, write_listing
from foveal.deployment.batch.output import Output, Tally
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.escaping import as_unicode
from foveal.foundation.memory import keep_freed_memory
from foveal.images.formats import Skipped
from foveal.images.sources import list_items
from foveal.models import ImageModel, Inputs, as_classifier

ENGINES = ("local", "ray")
DEVICES = ("auto", "cpu", "cuda")
SHARD_SIZE = 2048  # images
# Opens a progress bar. Its arguments are the unit, the total, and the number finished before. The
# context yields a function that is called with the number of units finished since its last call.
Bar = Callable[[str, int, int], AbstractContextManager[Callable[[int], None]]]


class Settings(TypedDict):
    """Settings of a run, as stored in its manifest."""

    model: str
    runtime: str
    weights_sha256: str
    source: str
    batch_size: int
    shard_size: int
    explain: bool


@dataclass(frozen=True)
class Predicted:
    """The summary of a finished run, which `predict` returns.

    Attributes:
        out: folder or file that holds the rows.
        images: number of images, and so of rows.
        errors: number of images that could not be read.
        resized: number of images that were resized to the model's size.
        noted: number of images with a note, such as a guessed value range.
        skipped_lines: report on the files of the source that were skipped, or an empty text.
        size: height and width in pixels that the model expects, or None.
        new: number of rows that this call added; the others were finished before.
        seconds: duration of this call.
    """

    out: Path
    images: int
    errors: int
    resized: int
    noted: int
    skipped_lines: str
    size: tuple[int, int] | None
    new: int
    seconds: float


def predict(
    model: str | Path,
    source: str | Path,
    out: str | Path,
    *,
    engine: str = "local",
    address: str | None = None,
    resume: bool = False,
    explain: bool = False,
    batch_size: int | None = None,
    shard_size: int = SHARD_SIZE,
    workers: int | None = None,
    device: str = "auto",
    runtime: str = "torch",
    bar: Bar | None = None,
) -> Predicted:
    """Run a model on the images of a source, and write one row per image into Parquet files.

    The row of an image that cannot be read has no prediction, but an `error`.

    Args:
        model: a zoo name, a run folder, OWNER/NAME, or a .onnx file.
        source: a folder, file, glob, `hf:OWNER/NAME` or URL of images, see `list_items`.
        out: a folder of Parquet shards, or one file if it ends in `.parquet`.
        engine: `local` or `ray`; both write the same rows.
        address: address of a Ray cluster; None for RAY_ADDRESS if it is set, else this machine.
        resume: keep the finished shards of a run with the same settings, and predict the rest.
        explain: also draw the explanation of each image, as a PNG.
        batch_size: images per forward pass; None for about 2**20 pixels, but 16 to 1,024 images.
        shard_size: images per shard.
        workers: number of batches predicted in parallel; None for one per CPU or, on GPUs, for
            a number that the engine chooses.
        device: `auto`, `cpu` or `cuda`.
        runtime: `torch`, or `onnx`, which runs on CPUs with the local engine.
        bar: opens a progress bar. It is called with the unit, the total, and the number finished
            before. Its context yields a function that receives the size of each finished batch.

    Raises:
        UserError: the model, the source or the output cannot be used, the output holds a run
            already, or the disk is full.
    """
    start_time = time.perf_counter()
    _check_paths(model=model, source=source, out=out)
    _check_options(engine, device, address, batch_size, shard_size, workers)
    keep_freed_memory()  # makes prediction on a CPU faster
    network = _classifier(model, runtime)
    if onnx.about(network) is not None:  # run by ONNX Runtime, as every .onnx file is
        device = _onnx_device(engine, device)
    output = Output(Path(out))
    settings = _settings(model, network, source, batch_size, shard_size, explain)
    with _connection(engine, address), output.locked():
        manifest = _begin_or_resume(output, str(source), settings, network, resume)
        if output.one_file and output.out.exists():  # written last, so the run is finished
            tally, new_count = output.tally_of_file(), 0
        else:
            job = Job(
                str(model),
                Shape(network.inputs.sizing, network.in_channels),
                Listing.open(output.listing),
                settings["batch_size"],
                explain=explain,
                device=device,
                workers=workers,
            )
            predict_shards = partial(_engine(engine), network, job)
            tally, new_count = _run(predict_shards, job, output, manifest, bar)
    return _summary(output, tally, new_count, manifest, network.inputs.size, start_time)


def _settings(
    model: str | Path,
    network: ImageModel,
    source: str | Path,
    batch_size: int | None,
    shard_size: int,
    explain: bool,
) -> Settings:
    return {
        "model": as_unicode(str(model)),
        "runtime": "torch" if onnx.about(network) is None else "onnx",
        "weights_sha256": _weights_digest(Path(model)),
        "source": as_unicode(str(source)),
        "batch_size": batch_size or _batch_size(network.inputs),
        "shard_size": shard_size,
        "explain": explain,
    }


def _begin_or_resume(
    output: Output, source: str, settings: Settings, network: ImageModel, resume: bool
) -> Mapping[str, object]:
    """Begin a run, or check that the previous one can be resumed; return its manifest."""
    manifest = output.manifest()
    if manifest is None or output.is_empty():
        return _begin(output, source, settings, network)
    _check_same_settings(output.out, manifest, settings, resume)
    return manifest


def _check_paths(**arguments: str | Path) -> None:
    for name, value in arguments.items():
        if not isinstance(value, str | Path):
            raise UserError(
                f"Expected {name} as a name or path, but got {type(value).__name__}. For images "
                "in memory, call model.explain(images)."
            )


def _check_options(
    engine: str,
    device: str,
    address: str | None,
    batch_size: int | None,
    shard_size: int,
    workers: int | None,
) -> None:
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if device not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if address is not None and engine != "ray":
        raise UserError("An address needs the Ray engine: add --engine ray.")
    sizes = {"batch size": batch_size, "shard size": shard_size, "number of workers": workers}
    for quantity, number in sizes.items():
        if number is not None and (not isinstance(number, Integral) or number < 1):
            raise UserError(f"Expected a {quantity} of at least 1, but got {number}.")


def _onnx_device(engine: str, device: str) -> str:
    """Return the device for ONNX Runtime, which runs on CPUs."""
    if engine != "local":
        raise UserError("The Ray engine requires PyTorch: use --engine local for ONNX Runtime.")
    if device == "cuda":
        raise UserError("ONNX Runtime runs on CPUs only: use --runtime torch for --device cuda.")
    return "cpu"


def _classifier(model: str | Path, runtime: str) -> ImageModel:
    message = f"{model} is not a classifier: use foveal explain to see what it rebuilds."
    return as_classifier(onnx.load(model, runtime), message)


def _batch_size(inputs: Inputs) -> int:
    """Return a batch size of about 2**20 pixels in total, limited to 16 to 1,024 images."""
    height, width = inputs.usual_size or (1, 1)
    return max(16, min(1_024, 2**20 // (height * width)))


def _weights_digest(model: Path) -> str:
    """Return the SHA-256 of a model's config and weights, or of its main .onnx file."""
    files = [model]
    if model.suffix.lower() != ".onnx":
        folder = zoo.folder(str(model))
        files = [folder / name for name in ("config.json", "model.safetensors")]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _begin(
    output: Output, source: str, settings: Settings, network: ImageModel
) -> dict[str, object]:
    """List the images of the source, and write and return the manifest of a new run."""
    skipped = Skipped()
    with output.writing(output.listing) as partial_listing:
        items = list_items(source, skipped)
        digest = write_listing(items, partial_listing, settings["shard_size"])
    image_count = len(Listing.open(output.listing))
    if not image_count:
        note = f" ({skipped})" if skipped else ""
        raise UserError(f"{source} holds no images{note}: there is nothing to predict.")
    manifest = {
        "foveal": __version__,
        **settings,
        "images": image_count,
        "skipped_lines": str(skipped) if skipped else "",
        "listing_sha256": digest,
        "classes": list(network.inputs.classes),
    }
    output.begin(manifest)
    return manifest


def _check_same_settings(
    out: Path, manifest: Mapping[str, object], settings: Mapping[str, object], resume: bool
) -> None:
    """Check that a run can be continued.

    Raises:
        UserError: `resume` is False, or a setting differs from that in the manifest.
    """
    if not resume:
        raise UserError(f"{out} holds a run already: give --resume, or another --out.")
    stored = {"runtime": "torch", **manifest}  # older manifests have no runtime
    for name, value in settings.items():
        if stored.get(name) != value:
            raise UserError(
                f"{out} was started with {name}={stored.get(name)!r}, but got {value!r}: resume "
                "with the same value, or give another --out."
            )


def _connection(engine: str, address: str | None) -> AbstractContextManager[None]:
    """Return a context that connects to the cluster; it does nothing for the local engine."""
    if engine == "local":
        return nullcontext()
    from foveal.deployment.batch.cluster import cluster_connection

    return cluster_connection(address)


def _engine(engine: str) -> Engine:
    if engine == "local":
        from foveal.deployment.batch.local import predict_locally

        return predict_locally
    from foveal.deployment.batch.cluster import predict_on_ray

    return predict_on_ray


def _run(
    predict_shards: Callable[[Iterable[int]], Iterator[Batch]],
    job: Job,
    output: Output,
    manifest: Mapping[str, object],
    bar: Bar | None,
) -> tuple[Tally, int]:
    """Predict the shards that are not finished.

    Returns:
        The tally of all shards, and the number of images that were predicted now.
    """
    counts = job.listing.counts
    finished = output.finished_tallies(counts)
    remaining = [shard for shard in range(len(counts)) if shard not in finished]
    tally = sum(finished.values(), Tally())
    previous = tally.images
    progress = bar("images", len(job.listing), previous) if bar else nullcontext(lambda _: None)
    with progress as advance:
        for shard, rows, pictures in assemble_shards(
            job, _with_progress(predict_shards(remaining), advance) if remaining else ()
        ):
            tally += output.write(shard, len(counts), rows, pictures, manifest)
    if tally.images != len(job.listing):
        raise UserError(f"{output.out}: shards are missing. Give --resume to predict them.")
    output.finish(counts, manifest, tally)
    return tally, tally.images - previous


def _with_progress(batches: Iterable[Batch], advance: Callable[[int], None]) -> Iterator[Batch]:
    for batch in batches:
        advance(len(batch.rows))
        yield batch


def _summary(
    output: Output,
    tally: Tally,
    new_count: int,
    manifest: Mapping[str, object],
    size: tuple[int, int] | None,
    start_time: float,
) -> Predicted:
    """Return the summary of a run; `new_count` is the number of rows that this call added."""
    return Predicted(
        out=output.out,
        **vars(tally),  # images, errors, resized and noted
        skipped_lines=str(manifest.get("skipped_lines", "")),
        size=size,
        new=new_count,
        seconds=time.perf_counter() - start_time,
    )
