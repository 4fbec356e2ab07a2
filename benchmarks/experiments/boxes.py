"""Contributions against post-hoc methods, compared with the boxes of photographs.

Uses the photos of `imagenet-val-1000` whose boxes exclude the centre of the image and cover at most
a quarter of it: the centre, which hits five of six photos, hits none of these. Every method
explains the logit of the label. Methods of more than ten passes explain every n-th of these photos;
differences from the contributions are paired, over the photos that the method explained. Rows
already in the output are kept: delete it to measure all of them again.

    OMP_NUM_THREADS=1 FOVEAL_DATA=... python benchmarks/experiments/boxes.py [--slow-every 8]
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal import zoo
from foveal.datasets import ImageSet
from foveal.evaluation.evaluate import load_annotated
from foveal.explainers import attribute, explainer
from foveal.explanation import Explanation
from foveal.foundation.files import read_json, write_json
from foveal.metrics import energy_inside, pointing_game
from foveal.metrics.classes import as_known
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS

MODEL, DATA = "imagenet", "imagenet-val-1000"
LAST = "backbone.top"  # the layer whose mean the logits are linear in
AREA = 0.25  # maximum fraction of the image that its boxes cover
BATCH, PIXELS = 16, 2**20
RESAMPLES, SEED = 10_000, 0
FIGURES = {"hits": pointing_game, "inside": energy_inside}

Explain = Callable[[ImageModel, Tensor, Tensor], Explanation]


def named(method: str) -> Explain:
    """Return the explanation of a method by its name."""
    return lambda model, images, targets: explainer(method)(model, images, targets)


def at_last(method: str) -> Explain:
    """Return the explanation of a method that reads the last layer, after its activation."""
    return lambda model, images, targets: attribute(
        model, images, method, targets=targets, layer=LAST
    )


WAYS: dict[str, Explain] = {
    CONTRIBUTIONS: named(CONTRIBUTIONS),
    "grad-cam": named("grad-cam"),
    f"grad-cam at {LAST}": at_last("grad-cam"),
    "layer-cam": named("layer-cam"),
    f"layer-cam at {LAST}": at_last("layer-cam"),
    "gradient-x-input": named("gradient-x-input"),
    "centre": named("centre"),
    "uniform": named("uniform"),
    "integrated-gradients": named("integrated-gradients"),
    "occlusion": named("occlusion"),
    "rise": named("rise"),
}
SLOW = ("integrated-gradients", "occlusion", "rise")


def hard(images: ImageSet[Any]) -> Tensor:
    """Return the sorted indices of photos whose boxes are small and exclude the centre."""
    chosen = []
    for batch in images.batches(BATCH):
        assert batch.masks is not None
        truth = batch.masks[:, 0] > 0
        height, width = truth.shape[1:]
        rows, columns = (slice((side - 1) // 2, side // 2 + 1) for side in (height, width))
        middle = truth[:, rows, columns].flatten(1).any(dim=1)
        area = truth.flatten(1).float().mean(dim=1)
        chosen.append(~middle & (area > 0) & (area <= AREA))
    return torch.cat(chosen).nonzero()[:, 0]


def measured(model: ImageModel, images: ImageSet[Any], explain: Explain) -> dict[str, Any]:
    """Return the values (N,) of each of `FIGURES`, and the mean number of passes."""
    parts: dict[str, list[Tensor]] = {name: [] for name in FIGURES}
    passes = 0.0
    for batch in images.batches(BATCH, PIXELS):
        assert batch.masks is not None
        explanation = explain(model, batch.images.float() / 255, batch.labels)
        passes += explanation.cost * len(batch)
        for name, figure in FIGURES.items():
            parts[name].append(figure(explanation, batch.masks).double())
    return {name: torch.cat(values) for name, values in parts.items()} | {
        "passes": passes / len(images)
    }


def interval(differences: Tensor) -> list[float]:
    """Return the mean of paired differences (N,) with its 95 % bootstrap interval."""
    known = differences[~differences.isnan()]
    draw = torch.Generator().manual_seed(SEED)
    picked = torch.randint(len(known), (RESAMPLES, len(known)), generator=draw)
    ends = known[picked].mean(dim=1).quantile(torch.tensor([0.025, 0.975]).double())
    return [round(float(value), 4) for value in (known.mean(), *ends)]


def compared(own: dict[str, Any], found: dict[str, Any], indices: Tensor) -> dict[str, Any]:
    """Return the row of a method: its means, and the contributions' differences from them."""
    row: dict[str, Any] = {"images": len(indices), "passes": round(found["passes"], 2)}
    for name in FIGURES:
        row[name] = round(float(found[name].nanmean()), 4)
        row[f"{name}_of_contributions"] = round(float(own[name][indices].nanmean()), 4)
        row[f"{name}_above"] = interval(own[name][indices] - found[name])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/boxes.json"))
    parser.add_argument("--slow-every", type=int, default=8, help="photos per one of slow methods")
    parser.add_argument("--methods", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    model = zoo.load(MODEL)
    assert Ability.CLASSES in model.abilities
    sizing = model.inputs.sizing
    test, _ = as_known(load_annotated(DATA, "test", size=sizing, channels=3), model)
    test = test.subset(hard(test))
    everything = torch.arange(len(test))
    some = everything[:: options.slow_every]
    kept = read_json(options.out)["methods"] if options.out.is_file() else {}
    own = measured(model, test, WAYS[CONTRIBUTIONS])
    for name in options.methods:
        if name not in kept:
            indices = some if name in SLOW else everything
            found = measured(model, test.subset(indices), WAYS[name])
            kept[name] = compared(own, found, indices)
            print(f"{name}: {kept[name]}", flush=True)
        rows = {name: kept[name] for name in WAYS if name in kept}
        what = {"model": MODEL, "data": DATA, "images": len(test), "area": AREA}
        write_json(options.out, {**what, "methods": rows})


if __name__ == "__main__":
    main()
