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

SERVED_MODELS = ("mnist-focus", "mnist-cnn", "mnist-attention")


class Run(NamedTuple):
    """Time and memory of one run."""

    seconds: float
    megabytes: float  # peak resident memory


def run_until_exit(arguments: list[str]) -> Run:
    """Run Python with arguments until it exits; return its time and memory."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    # `wait4` also returns the peak memory of this process; `Popen.wait` would not.
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments)} ended with status {process.returncode}")
    return Run(seconds, usage.ru_maxrss / 1024)  # from kilobytes


def run_until_healthy(arguments: list[str]) -> Run:
    """Run a server with arguments until it is healthy; return its time and memory until then."""
    started = time.perf_counter()
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        address = re.search(r"http://\S+", server.stderr.readline())
        if address is None:
            raise SystemExit(f"python {' '.join(arguments)} printed no address")
        with urllib.request.urlopen(f"{address.group()}/healthz") as response:
            response.read()
        seconds = time.perf_counter() - started
        status = Path(f"/proc/{server.pid}/status").read_text()
        server.terminate()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return Run(seconds, int(peak.group(1)) / 1024 if peak else float("nan"))


def commands(folder: Path) -> dict[str, Callable[[], Run]]:
    """Return a function for each command that runs it once; the keys are the commands' names.

    The first command is a bare import of torch.

    Args:
        folder: folder for the image that the commands read, and for their output.
    """
    digit = folder / "digit.png"
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(digit)
    foveal_arguments = {
        "foveal --help": ["--help"],
        "foveal models": ["models"],
        "foveal recipes": ["recipes"],
        "foveal train --help": ["train", "--help"],
        "foveal explain": ["explain", "mnist-focus", str(digit)],
        "foveal explain --out": ["explain", "mnist-focus", str(digit), "--out", str(folder)],
    }
    python_arguments = {"import torch": ["-c", "import torch"]}
    for name, arguments in foveal_arguments.items():
        python_arguments[name] = ["-m", "foveal", *arguments]
    functions: dict[str, Callable[[], Run]] = {
        name: lambda arguments=arguments: run_until_exit(arguments)
        for name, arguments in python_arguments.items()
    }
    functions["foveal predict"] = lambda: _predict(digit)
    functions["foveal serve, three models"] = lambda: run_until_healthy(
        ["-m", "foveal", "serve", *SERVED_MODELS, "--port", "0"]
    )
    return functions


def _predict(digit: Path) -> Run:
    """Run `foveal predict` on one image, with a new folder for its output."""
    with tempfile.TemporaryDirectory() as out:
        rows = str(Path(out) / "rows.parquet")
        return run_until_exit(["-m", "foveal", "predict", "mnist-focus", str(digit), "--out", rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=9)
    round_count = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        functions = commands(Path(folder))
        runs: dict[str, list[Run]] = {name: [] for name in functions}
        for round_index in range(round_count + 1):
            for name, run_command in functions.items():
                run = run_command()
                if round_index > 0:  # the first round fills the file cache
                    runs[name].append(run)
    torch_runs = runs["import torch"]
    title = f"median of {round_count}"
    print(f"{title:<28}{'seconds':>8}{'/ torch':>9}{'MB':>6}")
    for name, command_runs in runs.items():
        ratio = statistics.median(
            run.seconds / torch_run.seconds
            for run, torch_run in zip(command_runs, torch_runs, strict=True)
        )
        seconds = statistics.median(run.seconds for run in command_runs)
        peak = max(run.megabytes for run in command_runs)
        print(f"{name:<28}{seconds:>8.2f}{ratio:>9.2f}{peak:>6.0f}")


if __name__ == "__main__":
    main()
