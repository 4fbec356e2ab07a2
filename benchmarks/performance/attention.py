"""Cost of attention: latency and training speed of cifar10-attention and of cifar10-vgg without it.

Both models are timed in alternation in one run.

python benchmarks/performance/attention.py [--out benchmarks/results/attention.json]
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

from foveal.backbones import WhiteningConv
from foveal.metrics import latency_ms, macs, parameters
from foveal.models import build_model
from foveal.models.image_model import ImageModel
from foveal.training import load_recipe
from foveal.training.objectives.losses import classification_loss
from foveal.training.optimizers import make_optimizer
from foveal.training.settings import Recipe

NAMES = ("cifar10-vgg", "cifar10-attention")
SIZE = (32, 32)


def build(recipe: Recipe) -> ImageModel:
    """Return a recipe's model with random weights; whitening layers are fitted to noise."""
    torch.manual_seed(0)
    model = build_model(recipe.model)
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            layer.fit(torch.randn(100, 3, *SIZE))
    return model.to(memory_format=torch.channels_last)


def step_seconds(model: ImageModel, recipe: Recipe, optimizer: torch.optim.Optimizer) -> float:
    """Return the seconds of one training step on random images."""
    size = recipe.training.batch_size
    images = torch.rand(size, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(size) % 10
    model.train()
    started = time.perf_counter()
    optimizer.zero_grad()
    classification_loss(model(images), labels, recipe.training).backward()
    optimizer.step()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds per model")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attention.json"))
    options = parser.parse_args()
    recipes = {name: load_recipe(name, ["lr=0.01"]) for name in NAMES}
    models = {name: build(recipe) for name, recipe in recipes.items()}
    optimizers = {name: make_optimizer(models[name], recipes[name].training) for name in NAMES}
    latencies: dict[str, list[float]] = {name: [] for name in NAMES}
    steps: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(options.rounds):
        for name in NAMES:  # alternating, so that other load on the machine affects both equally
            latencies[name].append(latency_ms(models[name], SIZE))
            steps[name].append(step_seconds(models[name], recipes[name], optimizers[name]))
    result: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__.split("+")[0],
        "rounds": options.rounds,
    }
    for name in NAMES:
        batch = recipes[name].training.batch_size
        result[name] = {
            "parameters": parameters(models[name]),
            "macs": macs(models[name], SIZE),
            "latency_ms": round(statistics.median(latencies[name]), 3),
            "trained_images_per_second": round(batch / statistics.median(steps[name])),
        }
    pairs = zip(*(latencies[name] for name in NAMES), strict=True)
    ratios = [attention_ms / vgg_ms for vgg_ms, attention_ms in pairs]
    result["latency_ratio"] = round(statistics.median(ratios), 3)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
