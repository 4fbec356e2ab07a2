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

SIZE, SIDE, QUALITY = (500, 375), 224, 97  # photo size, model input side, JPEG quality
SHARD, ROUNDS = 2_048, 5
PARAMETERS = 109_885  # of cifar10-focus-plain


def seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def photos(folder: Path, count: int) -> int:
    """Write parts of a photo as JPEGs; return their mean size in bytes."""
    from sklearn.datasets import load_sample_image

    whole, rng = Image.fromarray(load_sample_image("china.jpg")), np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        left, top = (int(rng.integers(0, room)) for room in (140, 52))
        part = whole.crop((left, top, left + SIZE[0], top + SIZE[1]))
        part.save(folder / f"{number:05d}.jpg", quality=QUALITY)
    return sum(path.stat().st_size for path in folder.iterdir()) // count


def decoding(folder: Path) -> dict[str, float]:
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


def listing(folder: Path, count: int) -> dict[str, float]:
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


def plan(count: int, scratch: Path) -> dict[str, float]:
    """Return the size of a planned image: its row in the shard that an engine receives."""
    from foveal.deployment.batch.cluster import _shard_row

    names = (Item(f"s3://bucket/photos/{n // 1000:06d}/{n:09d}.jpg", None) for n in range(count))
    write_listing(names, scratch / "plan.parquet", SHARD)
    opened = Listing.open(scratch / "plan.parquet")
    job = Job("cifar10-focus-plain", Shape((SIDE, SIDE), 3), opened, batch_size=256)
    rows = [_shard_row(job, shard) for shard in range(len(opened.counts))]
    return {
        "bytes_per_image": sum(row.nbytes for row in rows) / count,
        "pickled_bytes_per_image": len(pickle.dumps(rows)) / count,
    }


def writing(scratch: Path) -> dict[str, float]:
    """Return the time to write and sync a shard of rows, and its size."""
    network = zoo.load("mnist-focus-plain")
    digits = BytesIO()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(digits, "png")
    (scratch / "digit.png").write_bytes(digits.getvalue())
    items = [Item(str(scratch / "digit.png"), None)] * SHARD
    with ThreadPoolExecutor(1) as pool:
        (batch,) = (b.result() for b in decode_ahead(items, SHARD, Shape((28, 28), 1), pool))
    rows, _ = predict_batch(network, "mnist-focus-plain", batch)
    names = [f"s3://bucket/photos/000012/{n:09d}.jpg" for n in range(SHARD)]
    rows = rows.set_column(0, rows.schema.field(0), pa.array(names))
    rng = np.random.default_rng(0)  # different predictions, as for photos
    probabilities = rng.dirichlet(np.ones(10), SHARD).astype(np.float32)
    column = rows.schema.get_field_index("probabilities")
    rows = rows.set_column(
        column, rows.schema.field(column), pa.array(list(probabilities), pa.list_(pa.float32()))
    )
    out = Output(scratch / "rows")
    with out.locked():
        times = [
            seconds(lambda number=number: out.write(number, 100, rows, {}, {}))
            for number in range(30)
        ]
    size = sum(path.stat().st_size for path in (scratch / "rows").glob("part-*")) / 30
    return {"ms_of_a_shard": 1e3 * median(times), "bytes_of_a_row": size / SHARD}


def _reduce(rank: int, world: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    gradients = torch.rand(PARAMETERS)
    times = []
    for _ in range(30):
        dist.barrier()
        times.append(seconds(lambda: dist.all_reduce(gradients)))
    if rank == 0:
        Path(out).write_text(str(1e3 * median(times)))
    dist.destroy_process_group()


def all_reduce(scratch: Path) -> dict[str, float]:
    """Return the milliseconds to sum the gradients of a model over 2, 4 and 8 local processes."""
    results = {}
    for number, world in enumerate((2, 4, 8)):
        out = scratch / f"reduce-{world}"
        mp.spawn(_reduce, (world, 29_611 + number, str(out)), nprocs=world)
        results[f"ms_of_{world}_processes"] = float(out.read_text())
    return results


def round_values(values: dict) -> dict:
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
        size = photos(scratch / "photos", options.photos)
        results = {
            "cores": cpu_count(),
            "torch": torch.__version__,
            "photo_bytes": size,
            "decoding": round_values(decoding(scratch / "photos")),
            "listing": round_values(listing(scratch / "names", options.names)),
            "plan": round_values(plan(options.names, scratch)),
            "writing": round_values(writing(scratch)),
            "adding_up": round_values(all_reduce(scratch)),
        }
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
