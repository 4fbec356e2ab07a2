"""Keep the zoo's weights in half precision where hardly any answer changes.

    FOVEAL_DATA=... python benchmarks/halve.py [NAME ...]

Each model of more than 100 kB is compared, on the test set that its card names, with itself in half
precision. Where at least 99.9 % of its answers stay, the weights are rewritten, and on the card
their digest and the figures. Latencies stay as they are: `benchmarks/latency.py` measures those,
and the precision on disk does not change them. Judges come first, and what they say of models that
were in half precision before is measured anew.
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
from foveal.data import LargeSet, load_images, load_large
from foveal.evaluation import evaluate_on
from foveal.files import write_json
from foveal.metrics import look_over
from foveal.metrics.figures import METRICS_OF, Subject
from foveal.metrics.looks import as_floats, evaluating
from foveal.model_files import CARD, CONFIG, DIGEST, WEIGHTS, read_card, weights_digest
from foveal.models import AttentionModel, FocusModel, ImageModel, LargeFocusModel

LEAST = 100_000  # bytes of a file of weights
KEPT = 0.999  # of the answers
LEVEL = 1 / 255  # by which a rebuilt pixel may differ
BATCH = 500


def halve(weights: Path) -> None:
    """Rewrite a file of weights in half precision."""
    state = load_file(weights)
    floats = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    save_file({**state, **floats}, weights)


def is_large(weights: Path) -> bool:
    """Return whether a file of weights is large, and holds floats of single precision."""
    single = any(value.dtype == torch.float32 for value in load_file(weights).values())
    return single and weights.stat().st_size > LEAST


def answers(model: ImageModel, data: str) -> Tensor:
    """Return a model's answers to the test images of a dataset.

    Returns:
        (N, ...): classes (N, 1), of a high-resolution model the class for each task and whether
        each label of the last is given, and of a reconstructor the rebuilt images (N, C, H, W).
    """
    if isinstance(model, LargeFocusModel):
        return _large_answers(model, load_large(data, "test"))
    images = load_images(data, "test", size=model.inputs.sizing, channels=model.in_channels).images
    if getattr(model, "num_classes", 0):
        return look_over(model, images, BATCH).logits.argmax(dim=1, keepdim=True)
    with evaluating(model):
        return torch.cat([model(as_floats(model, batch)) for batch in images.split(BATCH)])


def _large_answers(model: LargeFocusModel, test: LargeSet) -> Tensor:
    several = [labels.dtype == torch.bool for labels in test.of(model.tasks).labels.values()]
    found = []
    with evaluating(model):
        for part in torch.arange(len(test)).split(16):
            view = model.view(test.images, part)
            logits = model.answer(view, model.places(view).keypoints).logits  # (B, T, classes)
            found += [
                torch.cat(
                    [
                        task > 0 if many else task.argmax(dim=1, keepdim=True)
                        for task, many in zip(logits.unbind(1), several, strict=True)
                    ],
                    dim=1,
                )
            ]
    return torch.cat(found)


def kept(before: Tensor, after: Tensor) -> float:
    """Return the fraction of N answers that stay; of rebuilt images, to one level of 255."""
    same = (before - after).abs() <= (LEVEL if before.is_floating_point() else 0)
    return float(same.flatten(1).all(dim=1).float().mean())


def halved(folder: Path, copy: Path, data: str) -> bool:
    """Copy a model with weights in half precision; return whether its answers stay.

    Args:
        folder: of the model, with a card.
        copy: the new folder.
        data: whose test images are answered.
    """
    copy.mkdir()
    for file in (CONFIG, WEIGHTS):
        shutil.copyfile(folder / file, copy / file)
    halve(copy / WEIGHTS)
    digest = weights_digest(copy / WEIGHTS)
    write_json(copy / CARD, read_card(folder) | {"weights": "float16", DIGEST: digest})
    fraction = kept(*(answers(zoo.load(place), data) for place in (folder, copy)))
    print(f"{folder.name}: {fraction:.2%} of the answers stay", flush=True)
    return fraction >= KEPT


def halve_model(name: str) -> bool:
    """Halve a model's weights and write its card anew, where they can be; return whether."""
    folder, card = zoo.folder(name), zoo.card(name)
    if not is_large(folder / WEIGHTS):
        return False
    with tempfile.TemporaryDirectory() as made:
        copy, data = Path(made) / name, card["recipe"]["data"]["name"]
        if not halved(folder, copy, data):
            return False
        as_they_were = {key: card["figures"][key] for key in ("model", "latency_ms")}
        write_figures(copy, evaluate_on(str(copy), data) | as_they_were)
        for file in (WEIGHTS, CARD):
            shutil.copyfile(copy / file, folder / file)
    return True


def judge_again(name: str, judge: str) -> None:
    """Write on a model's card what a judge says now."""
    model, data = zoo.load(name), zoo.card(name)["recipe"]["data"]["name"]
    kind = next(kind for kind in (FocusModel, AttentionModel) if isinstance(model, kind))
    test = load_images(data, "test", size=model.inputs.sizing, channels=model.in_channels)
    subject = Subject(model, test, None, zoo.load(judge), BATCH, 0)
    write_figures(zoo.folder(name), METRICS_OF[kind]["judged"](subject))
    print(f"{name}: judged again", flush=True)


def write_figures(folder: Path, figures: dict[str, Any]) -> None:
    """Write figures on a card; print those that change."""
    card = read_card(folder)
    for key, value in figures.items():
        if value != card["figures"].get(key):
            print(f"  {key}: {card['figures'].get(key)} -> {value}", flush=True)
    write_json(folder / CARD, card | {"figures": card["figures"] | figures})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=zoo.names(), help="models; all if not given")
    names = sorted(parser.parse_args().names, key=lambda name: not name.endswith("-judge"))
    halved = {name for name in names if halve_model(name)}
    for name in set(zoo.names()) - halved:
        figures = zoo.card(name).get("figures", {})
        judge = zoo.judge_of(figures.get("data", ""))
        if judge in halved and any(key.startswith("sufficiency") for key in figures):
            judge_again(name, judge)


if __name__ == "__main__":
    main()
