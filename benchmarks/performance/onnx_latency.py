"""Latency of one image on one thread: eager PyTorch against ONNX Runtime, in floats and int8.

All models of the zoo are measured, or the given ones. Results of other models stay in the file if
the versions of PyTorch and ONNX Runtime are the same. The runtimes of a model alternate in one
process, because the speed of a machine varies. The loss of accuracy by int8 is measured on the test
images. Writes benchmarks/results/onnx.json and a plot; `make figures` writes the table in
docs/onnx.md.

    FOVEAL_DATA=... python benchmarks/performance/onnx_latency.py [--models NAME...] [--rounds 30]
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from foveal import zoo
from foveal.datasets import load_images
from foveal.deployment.onnx import as_onnx, onnx_graph
from foveal.deployment.onnx.int8 import as_int8
from foveal.deployment.onnx.session import cpu_session, subgraph
from foveal.foundation.errors import UserError
from foveal.metrics import accuracy
from foveal.models.abilities import Ability
from foveal.plotting.canvas import new_figure

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "onnx.json"
PICTURE = ROOT / "docs" / "images" / "onnx.png"


def full_image_models() -> list[str]:
    """Return the zoo's models that read full images and can be exported as one graph."""
    return [name for name in zoo.names() if Ability.IN_PART not in zoo.load(name).abilities]


def alternating_medians(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median microseconds of each runtime, in alternating rounds of ten calls."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            for _ in range(10):
                started = time.perf_counter()
                call()
                if number:  # the first round is a warm-up
                    seconds[name].append(time.perf_counter() - started)
    return {name: round(1e6 * statistics.median(times), 1) for name, times in seconds.items()}


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return a model's latencies, file sizes and test accuracies in floats and in int8."""
    model = zoo.load(name)
    graph = onnx_graph(model)
    data = zoo.card(name)["recipe"]["data"]["name"]
    shape = {"size": model.inputs.size, "channels": model.in_channels}
    splits = {split: load_images(data, split, **shape) for split in ("train", "val", "test")}
    row: dict[str, Any] = {
        "model": name,
        "parameters": zoo.card(name)["figures"]["parameters"],
        "bytes": len(graph.SerializeToString()),
    }
    image = torch.rand(1, model.in_channels, *model.inputs.size)
    runtime = as_onnx(graph)
    calls: dict[str, Callable[[], Any]] = {
        "eager_us": lambda: model(image),
        "onnx_us": _logits_function(graph, image),
        "foveal_onnx_us": lambda: runtime(image),
    }
    row["accuracy"] = accuracy(runtime, splits["test"])
    try:
        quantized = as_int8(graph, splits["train"], splits["val"])
        calls["int8_us"] = _logits_function(quantized.graph, image)
        row["int8_part"] = quantized.part
        row["int8_bytes"] = len(quantized.graph.SerializeToString())
        row["int8_accuracy"] = accuracy(as_onnx(quantized.graph), splits["test"])
    except UserError as error:
        row["int8_refused"] = str(error)
    with torch.inference_mode():
        return {**row, **alternating_medians(calls, rounds)}


def _logits_function(graph: Any, image: torch.Tensor) -> Callable[[], Any]:
    """Return a function that computes the logits of one image."""
    runtime = cpu_session(subgraph(graph, ["images"], ["logits"]), threads=1)
    inputs = {"images": image.numpy()}
    return lambda: runtime.run(["logits"], inputs)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw how many times faster than eager PyTorch each model is; a line marks four times."""
    rows = results["models"]
    figure = new_figure(7.0, 0.26 * len(rows) + 0.8)
    axes = figure.subplots()
    positions = range(len(rows))
    axes.barh(positions, [row["eager_us"] / row["onnx_us"] for row in rows], color="#4c78a8")
    axes.axvline(4, color="black", linewidth=0.8, linestyle=":")
    axes.set_yticks(positions, [row["model"] for row in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("times faster than eager PyTorch, one image, one thread")
    figure.savefig(path, dpi=120)


def main() -> None:
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=full_image_models())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, one thread",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    path = options.out
    previous = json.loads(path.read_text()) if path.is_file() else {}
    previous_rows = previous.pop("models", []) if results.items() <= previous.items() else []
    rows = {row["model"]: row for row in previous_rows if row["model"] in zoo.names()}
    for name in options.models:
        rows[name] = measure(name, options.rounds)
        print(json.dumps(rows[name]), flush=True)
    results["models"] = [rows[name] for name in sorted(rows)]
    path.write_text(json.dumps(results, indent=2) + "\n")
    plot(results, PICTURE)


if __name__ == "__main__":
    main()
