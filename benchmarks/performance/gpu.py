"""Images per second on a GPU for prediction, explanation and training of the zoo's models.

    python benchmarks/performance/gpu.py [--device cpu] [--seconds 1] [MODEL ...]

Images are on the device before they are timed. Rates are for full batches; the first batch is a
warm-up and not counted.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from foveal import zoo
from foveal.models import ImageModel

MODELS = ("mnist-focus", "cifar10-cnn", "cifar10-glimpse", "cifar10-attention", "imagenet")
PIXELS = 2**24  # per batch, over all channels: 21,399 digits, 111 photographs of 224x224 pixels
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rate(step: Callable[[], object], count: int, seconds: float, device: torch.device) -> float:
    """Return the images per second of a step on `count` images."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    synchronize()
    step_count = 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        step()
        synchronize()
        step_count += 1
    return step_count * count / (time.perf_counter() - start)


def rates(
    network: ImageModel, images: torch.Tensor, seconds: float, dtype: torch.dtype
) -> dict[str, float]:
    """Return the images per second of a model for images (B, C, H, W) on its device."""
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def predict() -> None:
        with torch.inference_mode(), autocast():
            network(images)

    def explain() -> None:
        with autocast():
            network.explain(images, batch_size=len(images))

    def train_step() -> None:
        with autocast():
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        network.zero_grad()

    def autocast() -> torch.autocast:
        return torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32)

    steps = {"predicted": predict, "explained": explain, "trained on": train_step}
    return {name: rate(step, len(images), seconds, images.device) for name, step in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of each measurement")
    parser.add_argument(
        "--pixels", type=int, default=PIXELS, help="pixels per batch, over all channels"
    )
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("Expected a GPU that torch can use, but found none: pass --device cpu.")
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    print(f"Images per second on {device_name}, PyTorch {torch.__version__}:")
    for name in options.models:
        network = zoo.load(name).to(device)
        height, width = network.inputs.usual_size or (32, 32)
        count = max(1, options.pixels // (network.in_channels * height * width))
        images = torch.rand(count, network.in_channels, height, width, device=device)
        for precision, dtype in PRECISIONS.items():
            by_step = rates(network, images, options.seconds, dtype)
            text = ", ".join(f"{value:,.0f} {step}" for step, value in by_step.items())
            print(f"{name}, {precision}, {count} at a time: {text}", flush=True)


if __name__ == "__main__":
    main()
