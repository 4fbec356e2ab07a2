"""Cost of a prediction by image size, for a focus model and for baselines that read every pixel.

The baselines use the focus model's patch encoder. Latencies are for one image on one thread: the
medians of alternating passes, because the speed of a machine varies; slow models are run once.
Memory is the peak of a separate process minus its memory before the image was created. The focus
model is measured on an image in memory (the thumbnail is computed from all pixels) and on one that
is read in part (megapixel MNIST, whose thumbnail and patches are generated, as a pyramid on disk
provides them).

    python benchmarks/experiments/highres.py [--model megapixel-mnist-focus]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveal import zoo
from foveal.datasets import load_large
from foveal.foundation.files import write_json
from foveal.models import FocusNet, SmallCNN, build_model
from foveal.plotting import colour, new_figure
from foveal.training import load_recipe

SIDES = (1500, 3000, 6000, 12_000)
ROUNDS, MAX_SECONDS = 9, 1.5  # passes per model; a model slower than MAX_SECONDS gets one pass
MAX_DENSE_SIDE = 3000  # of dense models, above which only multiply-adds are counted
PATCH_BATCH = 500  # patches per pass
DOWNSAMPLED_SIDE = 187  # side in pixels of the downsampled image


class FullResolution(nn.Module):
    """The patch encoder over the whole image, a maximum over all locations, and a linear layer."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.encoder = focus.head.encoder
        self.head = nn.Linear(self.encoder.project.out_features, focus.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.head(self.encoder(images))


def encode_all(encoder: nn.Module, images: Tensor, side: int) -> Tensor:
    """Return the vectors (K, D) of all K patches of a gapless grid of one image, row by row."""
    tiles = images.unfold(2, side, side).unfold(3, side, side)  # (1, C, h, w, P, P)
    patches = tiles.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return torch.cat([encoder(batch) for batch in patches.split(PATCH_BATCH)])


class EveryPatch(nn.Module):
    """The patch encoder on all patches of a gapless grid, combined by attention."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.encoder, self.attention = focus.head.encoder, focus.head.attention
        self.patch_size = focus.patch_size

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        vectors = encode_all(self.encoder, images, self.patch_size)[None]
        locations = torch.zeros(*vectors.shape[:2], 2, device=images.device)
        return self.attention(vectors, locations)[0][:, 0]


class Downsampled(nn.Module):
    """A small CNN on the downsampled image."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.cnn = SmallCNN(focus.in_channels, focus.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.cnn(F.avg_pool2d(images, max(1, images.shape[-1] // DOWNSAMPLED_SIDE)))


class InMemory(nn.Module):
    """The focus model on an image in memory."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.focus = focus

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.focus(images)


MODELS: dict[str, Callable[[FocusNet], nn.Module]] = {
    "focus, image in memory": InMemory,
    "downsampled image": Downsampled,
    "all patches": EveryPatch,
    "full resolution": FullResolution,
}
FOCUS = "focus, read in part"
NAMES = (FOCUS, *MODELS)


def load(name: str) -> FocusNet:
    """Return a model by name, or else the untrained model of a recipe, whose cost is the same."""
    if name in zoo.names() or Path(name).is_dir():
        model = zoo.load(name)
    else:
        settings = {"num_classes": 10, **load_recipe(name).model}
        model = build_model(settings).eval()
    assert isinstance(model, FocusNet)
    return model


def multiply_adds(name: str, focus: FocusNet, side: int) -> int:
    """Return the multiply-adds for one image, counted without running the model."""
    model = MODELS.get(name, InMemory)(focus).eval().to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, focus.in_channels, side, side, device="meta"))
    return int(counter.get_total_flops()) // 2


def resident_mb(peak: bool = False) -> float:
    """Return this process' resident memory, or its peak since `reset_peak`, in MB (Linux only)."""
    field = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def reset_peak() -> None:
    """Reset the peak of the resident memory to its current value."""
    Path("/proc/self/clear_refs").write_text("5")  # 5 resets only the peak: see man 5 proc


def predictor(focus: FocusNet, name: str, side: int) -> Callable[[], object]:
    """Return a function that classifies one image of the given side, and holds that image."""
    if name == FOCUS:
        images = load_large(f"megapixel-mnist-{side}", "test", limit=1).images
        view = focus.view(images, torch.zeros(1, dtype=torch.long))
        return lambda: focus.observe_view(view)
    model = MODELS[name](focus).eval()
    pixels = torch.zeros(1, focus.in_channels, side, side)
    return lambda: model(pixels)


def is_timed(name: str, side: int) -> bool:
    """Return whether a model is timed at a side, or only its multiply-adds are counted."""
    return side <= MAX_DENSE_SIDE or name not in ("all patches", "full resolution")


@torch.inference_mode()
def latencies(model: str, sides: list[int]) -> dict[tuple[str, int], list[float]]:
    """Return the seconds of each pass, by timed model and side."""
    torch.set_num_threads(1)
    focus = load(model)
    seconds: dict[tuple[str, int], list[float]] = {
        (name, side): [] for side in sides for name in NAMES if is_timed(name, side)
    }
    runs = {key: predictor(focus, *key) for key in seconds}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            if seconds[key] and seconds[key][-1] > MAX_SECONDS:
                continue
            started = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - started)
    return seconds


@torch.inference_mode()
def memory_mb(name: str, model: str, side: int) -> float:
    """Return the peak memory that this process needs for one prediction."""
    torch.set_num_threads(1)
    focus = load(model)
    load_large(f"megapixel-mnist-{side}", "test", limit=1)  # reads MNIST before memory is measured
    reset_peak()
    before = resident_mb()
    predictor(focus, name, side)()
    return round(resident_mb(peak=True) - before, 1)


def in_own_process(name: str, model: str, side: int) -> float:
    """Return the result of `memory_mb` in a new process."""
    command = [sys.executable, __file__, "--model", model, "--one", name, "--side", str(side)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(process.stdout))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw latency and multiply-adds against the side."""
    figure = new_figure(9, 3.4)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("latency_ms", "macs"), ("latency, ms", "multiply-adds"), strict=True
    ):
        for number, name in enumerate(NAMES):
            points = [row for row in rows if row["rival"] == name and row.get(key) is not None]
            sides, values = [row["side"] for row in points], [row[key] for row in points]
            width = 4.2 - 0.7 * number  # decreasing, so that coinciding lines stay visible
            axes.plot(sides, values, "o-", color=colour(number), label=name, lw=width, ms=5)
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(SIDES, [f"{side:,}" for side in SIDES], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("side of the image, pixels", fontsize=9)
        axes.set_ylabel(label, fontsize=9)
        axes.grid(color="#E4E8EB", lw=0.8)
    axes.legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="megapixel-mnist-focus")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/highres.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/highres.png"))
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--one", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(memory_mb(options.one, options.model, options.side)))
        return
    seconds = latencies(options.model, options.sides)
    rows = []
    for side in options.sides:
        for name in NAMES:
            row = {"rival": name, "side": side}
            row["macs"] = multiply_adds(name, load(options.model), side)
            if (name, side) in seconds:
                # The first pass is a warm-up.
                timed = seconds[name, side][1:] or seconds[name, side]
                row["latency_ms"] = round(1000 * statistics.median(timed), 2)
                row["memory_mb"] = in_own_process(name, options.model, side)
            rows.append(row)
            print(row, flush=True)
    focus = load(options.model)
    results = {
        "model": options.model,
        "keypoints": focus.keypoints,
        "patch_size": focus.patch_size,
        "shrink": focus.shrink,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": rows,
    }
    write_json(options.out, results)
    plot(rows, options.plot)


if __name__ == "__main__":
    main()
