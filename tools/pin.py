"""Pins: outputs of every zoo model for fixed inputs, to compare before and after a change.

    python tools/pin.py pins.json [--figures] [MODEL ...]           writes the pins
    python tools/pin.py pins.json [--figures] [MODEL ...] --check   compares with them

Inputs are drawn with a fixed seed, with the size that the model expects and a wider one, in one
batch on one thread. For the first size, ONNX Runtime is run as well. Each tensor is stored as its
SHA-256 and some of its values: equal hashes mean equal bits; if they differ, the values must agree
within the tolerance. With --figures, the figures of `foveal evaluate` on the first test images,
except latency, are stored as well, which requires FOVEAL_DATA and takes minutes.
"""

import argparse
import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal import zoo
from foveal.datasets import load_images, load_large
from foveal.deployment import onnx
from foveal.evaluation.evaluate import judge_of
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json
from foveal.metrics import evaluate
from foveal.metrics.classes import with_model_classes
from foveal.models import ImageModel
from foveal.models.abilities import Ability

IMAGES, SEED = 4, 0
LARGE = (512, 512)  # height and width for a model that accepts any size
TENSORS = ("logits", "keypoints", "scales", "weights", "maps", "rebuilt")
STORED_VALUES = 128  # of a tensor, at equal steps, in addition to its hash
TEST_IMAGES, TRAIN_IMAGES = 200, 1000  # with which the figures are measured
TOLERANCE = {"torch": 1e-6, "onnx": 1e-5}

Pins = dict[str, Any]


def pins_of(name: str, figures: bool) -> Pins:
    """Return the pins of a model, an entry per runtime and image size."""
    model = zoo.load(name)
    size = model.inputs.usual_size or LARGE
    wide = (size[0], size[1] + max(8, size[1] // 4))
    pins = {
        "torch": outputs(model, size),
        "torch-wide": outputs(model, wide),
        "onnx": outputs(onnx.load(name, "onnx"), size),
    }
    return pins | ({"figures": figures_of(name, model)} if figures else {})


def outputs(model: ImageModel, size: tuple[int, int]) -> Pins:
    """Return the tensors that explain fixed images, or the error if their size is rejected."""
    generator = torch.Generator().manual_seed(SEED)
    images = torch.rand(IMAGES, model.in_channels, *size, generator=generator)
    try:
        with warnings.catch_warnings(action="ignore"):
            explanation = model.explain(images)
    except (UserError, ValueError) as error:
        return {"refused": str(error)}
    return tensors_of(explanation)


def tensors_of(explanation: Explanation) -> Pins:
    """Return the hash and some values of each tensor of an explanation."""
    pins = {}
    for name in TENSORS:
        values: Tensor | None = getattr(explanation, name)
        if values is not None:
            digest = hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
            step = max(1, -(-values.numel() // STORED_VALUES))
            sample = values.flatten()[::step].tolist()
            pins[name] = {"shape": list(values.shape), "sha256": digest, "values": sample}
    return pins


def figures_of(name: str, model: ImageModel) -> Pins:
    """Return the figures (values of metrics) of a model on the first test images of its dataset."""
    data = zoo.card(name)["recipe"]["data"]["name"]
    if Ability.IN_PART in model.abilities:
        test, _ = with_model_classes(load_large(data, "test", limit=TEST_IMAGES // 4), model)
        figures = evaluate(model, test, name=name, batch_size=16)
    else:
        options = {"size": model.inputs.sizing, "channels": model.in_channels}
        test, train = (
            load_images(data, split, **options).subset(torch.arange(count))
            for split, count in (("test", TEST_IMAGES), ("train", TRAIN_IMAGES))
        )
        figures = evaluate(model, test, train, judge=judge_of(None, test), name=name)
    return {key: value for key, value in figures.items() if key != "latency_ms"}


def differences(name: str, before: Pins, after: Pins, tolerance: dict[str, float]) -> list[str]:
    """Return a line per difference above the tolerance; print the smaller differences."""
    lines = []
    for section in after:
        old, new = before.get(section, {}), after[section]
        limit = tolerance[section.partition("-")[0]] if section != "figures" else tolerance["torch"]
        lines += [
            f"{name} {section} {key}: {reason}"
            for key in sorted(set(old) | set(new))
            if (reason := difference(old.get(key), new.get(key), limit, f"{name} {section} {key}"))
        ]
    return lines


def difference(old: Any, new: Any, tolerance: float, what: str) -> str:
    """Return a description of a pin's difference, empty if there is none."""
    if old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        if old["shape"] != new["shape"]:
            return f"differs in shape: was {old['shape']}, is {new['shape']}"
        gap = (torch.tensor(old["values"]) - torch.tensor(new["values"])).abs().max().item()
    elif isinstance(old, float) and isinstance(new, float):
        gap = abs(old - new)
    else:
        return f"was {old!s:.80}, is {new!s:.80}"
    if gap <= tolerance:
        print(f"{what}: different bits, but values within {gap:.1e}")
        return ""
    return f"differs by {gap:.1e}, more than {tolerance:.0e}"


def main() -> None:
    """Write or check the pins."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("names", nargs="*", default=zoo.names(), metavar="MODEL")
    parser.add_argument("--check", action="store_true", help="compare with the file")
    parser.add_argument("--figures", action="store_true", help="include the figures")
    parser.add_argument("--tolerance", type=float, help="tolerance for both runtimes, such as 1e-4")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tolerance = dict.fromkeys(TOLERANCE, options.tolerance) if options.tolerance else TOLERANCE
    before = read_json(options.file) if options.check else {}
    after, problems = {}, []
    for name in options.names:
        after[name] = pins_of(name, options.figures)
        if options.check:
            problems += differences(name, before.get(name, {}), after[name], tolerance)
        else:
            write_json(options.file, after)
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(after)} models {'are as pinned' if options.check else 'pinned'}")


if __name__ == "__main__":
    main()
