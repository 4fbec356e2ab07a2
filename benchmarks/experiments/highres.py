"""Cost of a prediction by image size: the focus model and baselines that read every pixel.

The baselines use the focus model's patch encoder. Latencies are for one image on one thread, as
medians of passes in alternation, because the speed of a machine varies; slow ones are run once.
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
ROUNDS, LONG = 9, 1.5  # passes of each model, but a single one if it takes more seconds than LONG
DENSE = 3000  # maximum side at which dense models are timed; above, only multiply-adds are counted
AT_ONCE = 500  # patches per pass
SMALL = 187  # side in pixels of the downsampled image


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
    """Return the vectors (K, D) of all patches of a gapless grid of one image, row by row."""
    rows = images.unfold(2, side, side).unfold(3, side, side)  # (1, C, h, w, P, P)
    patches = rows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    return torch.cat([encoder(part) for part in patches.split(AT_ONCE)])


class EveryPatch(nn.Module):
    """The patch encoder on all patches of a gapless grid, combined by attention."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.encoder, self.attention = focus.head.encoder, focus.head.attention
        self.patch_size = focus.patch_size

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        vectors = encode_all(self.encoder, images, self.patch_size)[None]
        places = torch.zeros(*vectors.shape[:2], 2, device=images.device)
        return self.attention(vectors, places)[0][:, 0]


class Downsampled(nn.Module):
    """A small CNN on the downsampled image."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.cnn = SmallCNN(focus.in_channels, focus.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.cnn(F.avg_pool2d(images, max(1, images.shape[-1] // SMALL)))


class InMemory(nn.Module):
    """The focus model on an image in memory."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.focus = focus

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.focus(images)


RIVALS: dict[str, Callable[[FocusNet], nn.Module]] = {
    "focus, image in memory": InMemory,
    "downsampled image": Downsampled,
    "all patches": EveryPatch,
    "full resolution": FullResolution,
}
FOCUS = "focus, read in part"
NAMES = (FOCUS, *RIVALS)


def load(name: str) -> FocusNet:
    """Return the trained model, or an untrained one of that recipe, whose costs are the same."""
    if name in zoo.names() or Path(name).is_dir():
        model = zoo.load(name)
    else:
        settings = {"num_classes": 10, **load_recipe(name).model}
        model = build_model(settings).eval()
    assert isinstance(model, FocusNet)
    return model


def multiply_adds(name: str, focus: FocusNet, side: int) -> int:
    """Return the multiply-adds for one image, counted without computing them."""
    model = RIVALS.get(name, InMemory)(focus).eval().to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, focus.in_channels, side, side, device="meta"))
    return int(counter.get_total_flops()) // 2


def held_mb(most: bool = False) -> float:
    """Return the process' resident memory, or its peak since `forget_most`, in MB; on Linux."""
    wanted = "VmHWM:" if most else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024


def forget_most() -> None:
    """Reset the peak of the resident memory to its current value."""
    Path("/proc/self/clear_refs").write_text("5")


def passes(focus: FocusNet, name: str, side: int) -> Callable[[], object]:
    """Return a function that classifies one image with the given side, including the image."""
    if name == FOCUS:
        images = load_large(f"megapixel-mnist-{side}", "test", limit=1).images
        view = focus.view(images, torch.zeros(1, dtype=torch.long))
        return lambda: focus.observe_view(view)
    rival = RIVALS[name](focus).eval()
    pixels = torch.zeros(1, focus.in_channels, side, side)
    return lambda: rival(pixels)


def timed(name: str, side: int) -> bool:
    """Return whether a model is timed at a side; otherwise only its multiply-adds are counted."""
    return side <= DENSE or name not in ("all patches", "full resolution")


@torch.inference_mode()
def latencies(model: str, sides: list[int]) -> dict[tuple[str, int], list[float]]:
    """Return the seconds of each pass of all timed models."""
    torch.set_num_threads(1)
    focus = load(model)
    found: dict[tuple[str, int], list[float]] = {
        (name, side): [] for side in sides for name in NAMES if timed(name, side)
    }
    runs = {key: passes(focus, *key) for key in found}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            if found[key] and found[key][-1] > LONG:
                continue
            started = time.perf_counter()
            run()
            found[key].append(time.perf_counter() - started)
    return found


@torch.inference_mode()
def memory_mb(name: str, model: str, side: int) -> float:
    """Return the peak memory that this process needs for one prediction."""
    torch.set_num_threads(1)
    focus = load(model)
    load_large(f"megapixel-mnist-{side}", "test", limit=1)  # reads MNIST in advance
    forget_most()
    before = held_mb()
    passes(focus, name, side)()
    return round(held_mb(most=True) - before, 1)


def in_own_process(name: str, model: str, side: int) -> float:
    """Return `memory_mb` of a new process."""
    command = [sys.executable, __file__, "--model", model, "--one", name, "--side", str(side)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw latency and multiply-adds against the side."""
    figure = new_figure(9, 3.4)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("latency_ms", "macs"), ("latency, ms", "multiply-adds"), strict=True
    ):
        for number, name in enumerate(NAMES):
            own = [row for row in rows if row["rival"] == name and row.get(key) is not None]
            sides, values = [row["side"] for row in own], [row[key] for row in own]
            width = 4.2 - 0.7 * number  # keeps lines below others of the same value visible
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
                warm = seconds[name, side][1:] or seconds[name, side]  # the first one warms up
                row["latency_ms"] = round(1000 * statistics.median(warm), 2)
                row["memory_mb"] = in_own_process(name, options.model, side)
            rows.append(row)
            print(row, flush=True)
    focus = load(options.model)
    found = {
        "model": options.model,
        "keypoints": focus.keypoints,
        "patch_size": focus.patch_size,
        "shrink": focus.shrink,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": rows,
    }
    write_json(options.out, found)
    plot(rows, options.plot)


if __name__ == "__main__":
    main()
