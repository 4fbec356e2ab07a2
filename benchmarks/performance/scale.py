"""Measurements behind docs/scale.md: listing, decoding, writing, and summing gradients.

    python benchmarks/performance/scale.py

Larger scales are extrapolated there from these figures. The scaling of decoding with the number of
cores is measured with one and with all of them.
"""

import argparse
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image

from foveal import zoo
from foveal.deployment.batch.decoding import Shape, decode_ahead
from foveal.deployment.batch.job import Job
from foveal.deployment.batch.listing import Listing, write_listing
from foveal.deployment.batch.output import Output
from foveal.deployment.batch.rows import predict_batch
from foveal.images.sources import Item, list_items
from foveal.images.threads import cpu_count

SIZE = (500, 375)  # width and height of a photo in pixels
SIDE = 224  # side in pixels of the images that a model reads
QUALITY = 97  # of the JPEGs
SHARD = 2_048  # images per shard (a group of consecutive images, written to one file)
ROUNDS = 5  # repetitions of the measurement of decoding
REPEATS = 30  # repetitions of the other measurements
PARAMETERS = 109_885  # of cifar10-focus-plain


def seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def write_photos(folder: Path, count: int) -> int:
    """Write parts of a photo as JPEGs; return their mean size in bytes."""
    from sklearn.datasets import load_sample_image

    photo, rng = Image.fromarray(load_sample_image("china.jpg")), np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        max_left, max_top = photo.width - SIZE[0], photo.height - SIZE[1]
        left, top = (int(rng.integers(0, limit)) for limit in (max_left, max_top))
        crop = photo.crop((left, top, left + SIZE[0], top + SIZE[1]))
        crop.save(folder / f"{number:05d}.jpg", quality=QUALITY)
    return sum(path.stat().st_size for path in folder.iterdir()) // count


def measure_decoding(folder: Path) -> dict[str, float]:
    """Return images per second with one core and with all, measured in alternation."""
    items, all_cores = list(list_items(str(folder))), sorted(os.sched_getaffinity(0))
    rates: dict[int, list[float]] = {1: [], len(all_cores): []}

    def decode(cores: int) -> None:
        with ThreadPoolExecutor(cores) as pool:
            for batch in list(decode_ahead(items, 64, Shape((SIDE, SIDE), 3), pool)):
                batch.result()

    try:
        for _ in range(ROUNDS):
            for cores, speeds in rates.items():
                os.sched_setaffinity(0, all_cores[:cores])
                speeds.append(len(items) / seconds(lambda cores=cores: decode(cores)))
    finally:
        os.sched_setaffinity(0, all_cores)
    single, multiple = (median(speeds) for speeds in rates.values())
    return {
        "ms_of_a_core": 1e3 / single,
        "cores": len(all_cores),
        "images_per_second": multiple,
        "share_of_so_many_single_cores": multiple / (single * len(all_cores)),
    }


def measure_listing(folder: Path, count: int) -> dict[str, float]:
    """Return the speed of listing files in one folder and in many."""
    for name, per_folder in (("one", count), ("many", 1_000)):
        for number in range(count):
            target = folder / name / f"{number // per_folder:05d}"
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{number:08d}.jpg").touch()
    path = folder / "listing.parquet"
    rates = {
        f"names_per_second_of_{name}_folder{'s' * (name == 'many')}": count
        / seconds(lambda name=name: write_listing(list_items(str(folder / name)), path, SHARD))
        for name in ("one", "many")
    }
    return {**rates, "bytes_of_the_listing_per_name": path.stat().st_size / count}


def measure_plan(count: int, scratch: Path) -> dict[str, float]:
    """Return the bytes that describe one image in the shards that are sent to an engine."""
    from foveal.deployment.batch.cluster import _shard_row

    items = (Item(f"s3://bucket/photos/{n // 1000:06d}/{n:09d}.jpg", None) for n in range(count))
    write_listing(items, scratch / "plan.parquet", SHARD)
    listing = Listing.open(scratch / "plan.parquet")
    job = Job("cifar10-focus-plain", Shape((SIDE, SIDE), 3), listing, batch_size=256)
    rows = [_shard_row(job, shard) for shard in range(len(listing.counts))]
    return {
        "bytes_per_image": sum(row.nbytes for row in rows) / count,
        "pickled_bytes_per_image": len(pickle.dumps(rows)) / count,
    }


def measure_writing(scratch: Path) -> dict[str, float]:
    """Return the time to write and sync a shard of rows, and its size."""
    network = zoo.load("mnist-focus-plain")
    png = BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(png, "png")
    (scratch / "digit.png").write_bytes(png.getvalue())
    items = [Item(str(scratch / "digit.png"), None)] * SHARD
    with ThreadPoolExecutor(1) as pool:
        (batch,) = (
            future.result() for future in decode_ahead(items, SHARD, Shape((28, 28), 1), pool)
        )
    rows, _ = predict_batch(network, "mnist-focus-plain", batch)
    paths = [f"s3://bucket/photos/000012/{n:09d}.jpg" for n in range(SHARD)]
    rows = rows.set_column(0, rows.schema.field(0), pa.array(paths))
    # The rows of photos have different probabilities, which compress less than equal ones.
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(10), SHARD).astype(np.float32)
    column = rows.schema.get_field_index("probabilities")
    rows = rows.set_column(
        column, rows.schema.field(column), pa.array(list(probabilities), pa.list_(pa.float32()))
    )
    out = Output(scratch / "rows")
    with out.locked():
        times = [
            seconds(lambda number=number: out.write(number, 100, rows, {}, {}))
            for number in range(REPEATS)
        ]
    size = sum(path.stat().st_size for path in (scratch / "rows").glob("part-*")) / REPEATS
    return {"ms_of_a_shard": 1e3 * median(times), "bytes_of_a_row": size / SHARD}


def _reduce_in_process(rank: int, world: int, port: int, result_file: str) -> None:
    """Sum gradients over `world` processes; the first writes the median milliseconds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    gradients = torch.rand(PARAMETERS)
    times = []
    for _ in range(REPEATS):
        dist.barrier()
        times.append(seconds(lambda: dist.all_reduce(gradients)))
    if rank == 0:
        Path(result_file).write_text(str(1e3 * median(times)))
    dist.destroy_process_group()


def measure_all_reduce(scratch: Path) -> dict[str, float]:
    """Return the milliseconds to sum the gradients of a model over 2, 4 and 8 local processes."""
    results = {}
    for number, world in enumerate((2, 4, 8)):
        out = scratch / f"reduce-{world}"
        mp.spawn(_reduce_in_process, (world, 29_611 + number, str(out)), nprocs=world)
        results[f"ms_of_{world}_processes"] = float(out.read_text())
    return results


def round_values(values: dict) -> dict:
    """Return values with floats rounded to three digits after the point."""
    return {
        key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=800)
    parser.add_argument("--names", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scale.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        size = write_photos(scratch / "photos", options.photos)
        results = {
            "cores": cpu_count(),
            "torch": torch.__version__,
            "photo_bytes": size,
            "decoding": round_values(measure_decoding(scratch / "photos")),
            "listing": round_values(measure_listing(scratch / "names", options.names)),
            "plan": round_values(measure_plan(options.names, scratch)),
            "writing": round_values(measure_writing(scratch)),
            "adding_up": round_values(measure_all_reduce(scratch)),
        }
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
