"""Conversion of the zoo's weights to half precision if hardly any prediction changes.

    FOVEAL_DATA=... python tools/halve.py [--answers-only] [NAME ...]

Each model of more than 100 kB is compared with itself in half precision, on the test set given
on its card. If at least 99.9% of its predictions are unchanged, the weights are rewritten, as are
their digest and the figures on the card. Kernels that were fine-tuned from weights included in
Foveal are stored as differences from these, in 8 bits (`SCALE` in foveal/models/weights.py).
Latencies are kept, because they do not depend on the precision on disk
(`benchmarks/performance/latency.py` measures them). Judges are skipped unless they are
listed, because the cards of other models contain their results, which are then measured again.

Measuring all figures takes minutes per model. With --answers-only, only the accuracy or the
reconstruction error is measured again; the other figures keep their single-precision values, which
differed by at most 0.2 points wherever both were measured.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foveal import zoo
from foveal.datasets import ImageSet, load_images, load_large
from foveal.evaluation.evaluate import evaluate_on
from foveal.foundation.model_files import (
    CARD,
    CONFIG,
    DIGEST,
    WEIGHTS,
    read_card,
    weights_digest,
    write_card,
)
from foveal.images import LargeImages
from foveal.metrics import accuracy, observe_all, rebuilding
from foveal.metrics.classes import with_model_classes
from foveal.metrics.figures import measure
from foveal.metrics.judged import JUDGED_MAPS, JUDGED_PATCHES
from foveal.metrics.observing import as_floats, evaluating
from foveal.metrics.subject import Subject
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.weights import SCALE, as_difference, shipped_weights

MIN_BYTES = 100_000  # files of weights up to this size are not converted
MIN_UNCHANGED = 0.999  # minimum fraction of unchanged predictions
PIXEL_TOLERANCE = 1 / 255  # maximum difference of a reconstructed pixel
BATCH = 500


def halve(weights: Path, shipped: dict[str, Tensor]) -> None:
    """Rewrite a file of weights in half precision, and kernels as differences in 8 bits.

    Args:
        weights: the file.
        shipped: weights included in Foveal from which the kernels were fine-tuned, by name.
    """
    state = load_file(weights)
    for key in [key for key in state if not key.endswith(SCALE)]:
        if is_difference(key, state, shipped):
            state[key], state[key + SCALE] = as_difference(state[key], shipped[key])
        elif state[key].is_floating_point():
            state[key] = state[key].half()
    save_file(state, weights)


def is_difference(key: str, state: dict[str, Tensor], shipped: dict[str, Tensor]) -> bool:
    """Return whether a weight is to be stored as a difference: only kernels of convolutions are."""
    return key in shipped and state[key].is_floating_point() and state[key].ndim == 4


def is_large(weights: Path, shipped: dict[str, Tensor]) -> bool:
    """Return whether a file of weights is large and can be reduced."""
    state = load_file(weights)
    has_float32 = any(
        value.dtype == torch.float32 and not key.endswith(SCALE) for key, value in state.items()
    )
    is_reducible = has_float32 or any(is_difference(key, state, shipped) for key in state)
    return is_reducible and weights.stat().st_size > MIN_BYTES


def predictions_of(model: ImageModel, data: str) -> Tensor:
    """Return a model's predictions for the test images of a dataset.

    Returns:
        (N, ...): classes (N, 1); for a high-resolution model the class of each task and booleans
        for the labels of the last; for a reconstruction model the images (N, C, H, W).
    """
    if Ability.IN_PART in model.abilities:
        return _large_predictions(model, load_large(data, "test"))
    images = load_images(data, "test", size=model.inputs.sizing, channels=model.in_channels).images
    if model.num_classes:
        return observe_all(model, images, BATCH).logits.argmax(dim=1, keepdim=True)
    with evaluating(model):
        return torch.cat([model(as_floats(model, batch)) for batch in images.split(BATCH)])


def _large_predictions(model: ImageModel, test: ImageSet[LargeImages]) -> Tensor:
    """Return the class of each task, or the labels of a task with several labels per image."""
    observed = observe_all(model, test.images, 16)
    assert observed.task_logits is not None
    tasks = zip(observed.task_logits.unbind(1), test.of(model.tasks).tasks.values(), strict=True)
    predictions = [
        logits > 0 if labels.dtype == torch.bool else logits.argmax(dim=1, keepdim=True)
        for logits, labels in tasks
    ]
    return torch.cat(predictions, dim=1)


def unchanged_fraction(before: Tensor, after: Tensor) -> float:
    """Return the fraction of N predictions that are equal; pixels may differ by 1 of 255 levels."""
    tolerance = PIXEL_TOLERANCE if before.is_floating_point() else 0
    is_equal = (before - after).abs() <= tolerance
    return float(is_equal.flatten(1).all(dim=1).float().mean())


def copy_halved(folder: Path, copy: Path, data: str) -> bool:
    """Copy a model with weights in half precision; return whether its predictions are unchanged.

    Args:
        folder: the model's folder, with a card.
        copy: the new folder.
        data: dataset whose test images are classified.
    """
    copy.mkdir()
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(folder / file, copy / file)
    shipped = shipped_weights(zoo.load(folder))
    halve(copy / WEIGHTS, shipped)
    precision = "float16, kernels as 8-bit differences" if shipped else "float16"
    digest = weights_digest(copy / WEIGHTS)
    write_card(copy, read_card(folder) | {"weights": precision, DIGEST: digest})
    fraction = unchanged_fraction(
        *(predictions_of(zoo.load(path), data) for path in (folder, copy))
    )
    print(f"{folder.name}: {fraction:.2%} of the predictions are unchanged", flush=True)
    return fraction >= MIN_UNCHANGED


def halve_model(name: str, answers_only: bool) -> bool:
    """Convert a model's weights and rewrite its card if possible; return whether it was."""
    folder, card = zoo.folder(name), zoo.card(name)
    if not is_large(folder / WEIGHTS, shipped_weights(zoo.load(folder))):
        return False
    with tempfile.TemporaryDirectory() as scratch:
        copy, data = Path(scratch) / name, card["recipe"]["data"]["name"]
        if not copy_halved(folder, copy, data):
            return False
        figures = accuracy_figures(copy, data) if answers_only else evaluate_on(str(copy), data)
        unchanged = {key: card["figures"][key] for key in ("model", "latency_ms")}
        write_figures(copy, figures | unchanged)
        for file in (WEIGHTS, CARD):
            shutil.copyfile(copy / file, folder / file)
    return True


def accuracy_figures(folder: Path, data: str) -> dict[str, Any]:
    """Return the accuracy of a classifier or the errors of a reconstruction model."""
    model = zoo.load(folder)
    if Ability.IN_PART in model.abilities:
        return evaluate_on(str(folder), data)
    test = load_images(data, "test", size=model.inputs.sizing, channels=model.in_channels)
    matched, _ = with_model_classes(test, model)
    if Ability.REBUILT in model.abilities:
        return rebuilding(model, matched)._asdict()
    return {"accuracy": accuracy(model, matched)}


def judge_again(name: str, judge: str) -> None:
    """Update the judge's results on a model's card."""
    model, data = zoo.load(name), zoo.card(name)["recipe"]["data"]["name"]
    test = load_images(data, "test", size=model.inputs.sizing, channels=model.in_channels)
    subject = Subject(model, test, None, zoo.load(judge), BATCH, 0)
    write_figures(zoo.folder(name), measure(subject, [JUDGED_PATCHES, JUDGED_MAPS]))
    print(f"{name}: judge's results updated", flush=True)


def write_figures(folder: Path, figures: dict[str, Any]) -> None:
    """Write figures to a card; print those that change."""
    card = read_card(folder)
    for key, value in figures.items():
        if value != card["figures"].get(key):
            print(f"  {key}: {card['figures'].get(key)} -> {value}", flush=True)
    write_card(folder, card | {"figures": card["figures"] | figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = [name for name in zoo.names() if not name.endswith("-judge")]
    parser.add_argument(
        "names", nargs="*", default=defaults, help="models; all except judges if not given"
    )
    parser.add_argument("--answers-only", action="store_true", help="keep the other figures")
    options = parser.parse_args()
    converted = {name for name in options.names if halve_model(name, options.answers_only)}
    for name in set(zoo.names()) - converted:
        figures = zoo.card(name).get("figures", {})
        judge = zoo.judge_of(figures.get("data", ""))
        if judge in converted and any(key.startswith("sufficiency") for key in figures):
            judge_again(name, judge)


if __name__ == "__main__":
    main()
