"""Start-up time of commands relative to importing torch, and their peak memory.

Each round runs `python -c "import torch"` and every command once, each in a new process. A first
round, which fills the file cache, is not counted. The server is timed until /healthz responds.
Prints a table; run it on an idle machine.

    python benchmarks/performance/startup.py [--turns 9]
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SERVED = ("mnist-focus", "mnist-cnn", "mnist-attention")


class Run(NamedTuple):
    """Time and memory of one run."""

    seconds: float
    megabytes: float  # peak resident memory


def until_exit(arguments: list[str]) -> Run:
    """Run Python with arguments until it exits."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with status {process.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)


def until_healthy(arguments: list[str]) -> Run:
    """Run a server with arguments until it is healthy."""
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        found = re.search(r"http://\S+", server.stderr.readline())
        if found is None:
            raise SystemExit(f"python {' '.join(arguments)} does not serve")
        with urllib.request.urlopen(f"{found.group()}/healthz") as answer:
            answer.read()
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{server.pid}/status").read_text()
        server.terminate()
    most = re.search(r"VmHWM:\s+(\d+) kB", status)
    return Run(seconds, int(most.group(1)) / 1024 if most else float("nan"))


def commands(folder: Path) -> dict[str, Callable[[], Run]]:
    """Return the commands to time by name, with torch alone first."""
    digit = folder / "digit.png"
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(digit)
    foveal = {
        "foveal --help": ["--help"],
        "foveal models": ["models"],
        "foveal recipes": ["recipes"],
        "foveal train --help": ["train", "--help"],
        "foveal explain": ["explain", "mnist-focus", str(digit)],
        "foveal explain --out": ["explain", "mnist-focus", str(digit), "--out", str(folder)],
    }
    ways = {"import torch": ["-c", "import torch"]}
    ways |= {name: ["-m", "foveal", *arguments] for name, arguments in foveal.items()}
    timed: dict[str, Callable[[], Run]] = {
        name: lambda arguments=arguments: until_exit(arguments) for name, arguments in ways.items()
    }
    timed["foveal predict"] = lambda: _predict(digit)
    timed["foveal serve, three models"] = lambda: until_healthy(
        ["-m", "foveal", "serve", *SERVED, "--port", "0"]
    )
    return timed


def _predict(digit: Path) -> Run:
    with tempfile.TemporaryDirectory() as out:
        rows = str(Path(out) / "rows.parquet")
        return until_exit(["-m", "foveal", "predict", "mnist-focus", str(digit), "--out", rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder))
        runs: dict[str, list[Run]] = {name: [] for name in timed}
        for turn in range(turns + 1):
            for name, run in timed.items():
                found = run()
                if turn:
                    runs[name].append(found)
    alone = runs["import torch"]
    print(f"{'median of ' + str(turns):<28}{'seconds':>8}{'/ torch':>9}{'MB':>6}")
    for name, each in runs.items():
        ratio = statistics.median(
            run.seconds / torch.seconds for run, torch in zip(each, alone, strict=True)
        )
        seconds = statistics.median(run.seconds for run in each)
        most = max(run.megabytes for run in each)
        print(f"{name:<28}{seconds:>8.2f}{ratio:>9.2f}{most:>6.0f}")


if __name__ == "__main__":
    main()
