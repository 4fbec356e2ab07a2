"""Cost of models' own explanations and of post-hoc explanations, relative to the prediction only.

Each explanation is timed in alternation with the prediction of the same batch, on all cores. The
ratio of the median times is reported, and the ratio of the multiply-adds, which is the cost in
forward passes. A model's
own explanation is also timed on one image and on 256, the batch of `explain`, because its overhead
is per call rather than per image.

    python benchmarks/performance/costs.py [--models mnist-focus ...]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foveal import zoo
from foveal.explainers import OWN, explainer, post_hoc_methods
from foveal.foundation.files import write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.models import AttentionNet, ImageModel
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS

MODELS = ("mnist-focus", "mnist-attention", "cifar10-focus", "cifar10-attention", "cifar10-cnn")
BATCH = 100
OTHER_BATCHES = (1, 256)  # with which models' own explanations are timed too


def seconds(run: Callable[[], object]) -> float:
    """Return the wall seconds of one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def flops(run: Callable[[], object]) -> int:
    """Return the floating-point operations of one run."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return int(counter.get_total_flops())


def costs(name: str, rounds: int) -> dict[str, Any]:
    """Return the cost of each of a model's explanations, in forward passes."""
    model = zoo.load(name).to(memory_format=torch.channels_last)
    images = random_images(model, BATCH)
    methods = (OWN,) if Ability.GIVEN_KEYPOINTS in model.abilities else (OWN, *post_hoc_methods())
    if isinstance(model, AttentionNet):
        methods = (OWN, CONTRIBUTIONS, *post_hoc_methods())
    if model.name == "cnn":
        methods = post_hoc_methods()

    by_method = {}
    for method in methods:
        passes = flops(partial(explainer(method), model, images)) / flops(partial(model, images))
        method_rounds = rounds if passes < 10 else 1  # slow methods are timed once
        ratio = time_ratio(model, images, method, method_rounds)
        row = {"passes": round(passes, 3), "time_ratio": ratio}
        if method in (OWN, CONTRIBUTIONS):
            for batch in OTHER_BATCHES:
                batch_images = random_images(model, batch)
                row[f"time_ratio_of_{batch}"] = time_ratio(model, batch_images, method, rounds)
        by_method[method] = row
        print(name, method, by_method[method], flush=True)
    return by_method


def random_images(model: ImageModel, batch: int) -> Tensor:
    """Return images (batch, C, H, W) in channels-last memory format."""
    images = torch.rand(batch, model.in_channels, *model.inputs.size)
    return images.contiguous(memory_format=torch.channels_last)


def time_ratio(model: ImageModel, images: Tensor, method: str, rounds: int) -> float:
    """Return the ratio of the median times of an explanation and a prediction."""

    def predict() -> None:
        with torch.inference_mode():
            model(images)

    def explain() -> None:
        explainer(method)(model, images)

    pairs = [(seconds(predict), seconds(explain)) for _ in range(rounds + 1)]
    pairs = pairs[1:]  # the first round is a warm-up
    prediction, explanation = (statistics.median(column) for column in zip(*pairs, strict=True))
    return round(explanation / prediction, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=51, help="timed rounds per method")
    parser.add_argument(
        "--models",
        nargs="+",
        default=MODELS,
        help="models to measure; the others keep their results",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/costs.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    keep_freed_memory()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__.split("+")[0],
        "batch": BATCH,
        "models": json.loads(options.out.read_text())["models"] if options.out.is_file() else {},
    }
    for name in options.models:
        result["models"][name] = costs(name, options.rounds)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
