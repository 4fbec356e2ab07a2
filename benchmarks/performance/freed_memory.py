"""Time of explanations if freed memory is returned to the system or kept for reuse.

    python benchmarks/performance/freed_memory.py [--model imagenet] [--side 224] [--rounds 3]

By default, the C library glibc returns freed memory to the system. `foveal.foundation.memory` keeps
it in `train`, `evaluate`, `compare`, `explain`, `predict` and `serve`. A pass is `explain` of
photographs on one thread: one photograph in the main thread, as in `explain`, or several in a
separate thread, as in `predict` and `serve`. Each time is the median of several passes in a new
process; processes alternate, because the speed of a machine varies. Page faults count how often the
system had to clear a page.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

MODES = ("returned", "kept")
BATCHES = {"one photograph, main thread": 1, "20 photographs, separate thread": 20}
WARM_UP_PASSES, PASSES = 2, 6


def measure(model: str, side: int, mode: str, count: int) -> dict[str, float]:
    """Return milliseconds and page faults per photograph in this process."""
    import torch

    from foveal import zoo
    from foveal.foundation.memory import keep_freed_memory

    if mode == "kept" and not keep_freed_memory():
        raise SystemExit("Keeping freed memory requires glibc as the C library.")
    torch.set_num_threads(1)
    network = zoo.load(model)
    images = torch.rand(count, network.in_channels, side, side)

    def timed_passes() -> dict[str, float]:
        for _ in range(WARM_UP_PASSES):
            network.explain(images)
        times = []
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(PASSES):
            started = time.perf_counter()
            network.explain(images)
            times.append(time.perf_counter() - started)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return {
            "ms": 1000 * statistics.median(times) / count,
            "page_faults": faults / PASSES / count,
        }

    if count == 1:
        return timed_passes()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(timed_passes).result()


def in_own_process(options: argparse.Namespace, mode: str, count: int) -> dict[str, float]:
    """Return the result of `measure` in a new process."""
    command = [sys.executable, __file__, "--model", options.model, "--side", str(options.side)]
    command += ["--mode", mode, "--count", str(count)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="imagenet")
    parser.add_argument("--side", type=int, default=224, help="side of the photographs in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="processes per setting")
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        print(json.dumps(measure(options.model, options.side, options.mode, options.count)))
        return
    for name, count in BATCHES.items():
        results = {mode: [] for mode in MODES}
        for _ in range(options.rounds):
            for mode in MODES:
                results[mode].append(in_own_process(options, mode, count))
        for mode, runs in results.items():
            ms, faults = (
                statistics.median(run[key] for run in runs) for key in ("ms", "page_faults")
            )
            print(f"{name}, {mode}: {ms:.1f} ms and {faults:,.0f} page faults per photograph")


if __name__ == "__main__":
    main()
