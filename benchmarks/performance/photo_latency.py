"""Time per photograph with ONNX Runtime on one thread, for a focus model and a baseline.

The baseline is a classifier with the backbone EfficientNet-Lite0 on the full image. Both are timed
in alternation, so that other load on the machine affects both.

    python benchmarks/performance/photo_latency.py [pcb-focus]
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

import foveal
from foveal.backbones import EfficientNetLite
from foveal.deployment.onnx import onnx_graph
from foveal.deployment.onnx.graph import IMAGES
from foveal.deployment.onnx.session import Graph
from foveal.foundation.files import write_json
from foveal.models import PlainNet

LOGITS = "logits"
RESULT = Path(__file__).parent.parent / "results" / "photos" / "latency.json"


def seconds(graph: Graph, image: torch.Tensor) -> float:
    """Return the seconds to compute the logits of one image."""
    started = time.perf_counter()
    graph.run({IMAGES: image}, [LOGITS])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", default="pcb-focus")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    focus = foveal.load(options.model)
    side = focus.inputs.short_side
    size = (side, side)
    whole_image_model = PlainNet(
        EfficientNetLite(weights="imagenet"), focus.num_classes, inputs=focus.inputs
    )
    image = torch.rand(1, 3, *size)
    graphs = [
        Graph(onnx_graph(model.eval(), size), threads=1) for model in (focus, whole_image_model)
    ]
    times = [[seconds(graph, image) for graph in graphs] for _ in range(options.repeats + 2)]
    times = times[2:]  # the first two rounds are a warm-up
    focus_seconds, whole_seconds = (
        statistics.median(column) for column in zip(*times, strict=True)
    )
    ratio = statistics.median(focus_time / whole_time for focus_time, whole_time in times)
    results = {
        "model": options.model,
        "pixels": side,
        "focus_ms": round(1000 * focus_seconds, 1),
        "whole_ms": round(1000 * whole_seconds, 1),
        "ratio": round(ratio, 3),
        "repeats": options.repeats,
    }
    print(results)
    write_json(options.out, results)


if __name__ == "__main__":
    main()
