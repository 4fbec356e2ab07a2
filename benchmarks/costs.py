"""What an explanation costs: models' own and post-hoc ones, beside the answer alone, in one run.

Each is timed in turns with the plain answer on the same batch, on all cores; the ratio of medians
stands beside the multiply-adds, both in forward passes.

    python benchmarks/costs.py [--out docs/costs.json]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from foveal import zoo
from foveal.attribution import METHODS, OWN, explain_by
from foveal.memory import keep_freed_memory
from foveal.models import AttentionNet, FocusModel
from foveal.training.run import write_json

MODELS = ("mnist-focus", "mnist-attention", "cifar10-focus", "cifar10-attention", "cifar10-cnn")
BATCH = 100


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def flops(run: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return int(counter.get_total_flops())


def costs(name: str, rounds: int) -> dict[str, Any]:
    """Return what each of a model's explanations costs, in forward passes."""
    model = zoo.load(name).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    images = torch.rand(BATCH, model.in_channels, *model.inputs.size)
    images = images.contiguous(memory_format=torch.channels_last)
    methods = (OWN,) if isinstance(model, FocusModel) else (OWN, *METHODS)
    if isinstance(model, AttentionNet):
        methods = (OWN, "contributions", *METHODS)
    if model.name == "cnn":
        methods = tuple(METHODS)

    def answer() -> None:
        with torch.inference_mode():
            model(images)

    found = {}
    for method in methods:
        run = lambda method=method: explain_by(model, images, method)  # noqa: E731
        counted = flops(run) / flops(answer)
        turns = rounds if counted < 10 else 1
        pairs = [(seconds(answer), seconds(run)) for _ in range(turns + 1)][1:]
        once, more = (statistics.median(column) for column in zip(*pairs, strict=True))
        found[method] = {"passes": round(counted, 3), "time_ratio": round(more / once, 2)}
        print(name, method, found[method], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns that each method takes")
    parser.add_argument("--out", type=Path, default=Path("docs/costs.json"))
    options = parser.parse_args()
    keep_freed_memory()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__.split("+")[0],
        "batch": BATCH,
        "models": {name: costs(name, options.rounds) for name in MODELS if name in zoo.names()},
    }
    options.out.parent.mkdir(exist_ok=True)
    write_json(result, options.out)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
