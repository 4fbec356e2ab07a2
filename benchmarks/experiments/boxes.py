"""Agreement of contributions and post-hoc methods with the boxes of photographs.

The contribution of a location is its exact term in a logit. The photos are those of
`imagenet-val-1000` whose boxes exclude the centre of the image and cover at most a quarter of it:
always pointing to the centre hits the boxes of five of six photos, but of none of these. Every
method explains the logit of the label. Methods of more than ten passes explain every n-th of these
photos; differences from the contributions are paired, over the photos that the method explained.
Methods already in the output file are skipped: delete the file to measure all again.

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
from foveal.metrics.classes import with_model_classes
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS

MODEL, DATA = "imagenet", "imagenet-val-1000"
LAST_LAYER = "backbone.top"  # the logits are a linear function of its mean over all locations
MAX_AREA = 0.25  # maximum fraction of the image that its boxes cover
BATCH, PIXELS = 16, 2**20  # maximum images and pixels per batch
RESAMPLES, SEED = 10_000, 0
FIGURES = {"hits": pointing_game, "inside": energy_inside}

Explain = Callable[[ImageModel, Tensor, Tensor], Explanation]


def explain_by_name(method: str) -> Explain:
    """Return a function that explains by a registered method."""
    return lambda model, images, targets: explainer(method)(model, images, targets)


def explain_at_last_layer(method: str) -> Explain:
    """Return a function that explains by a method at the last layer, after its activation."""
    return lambda model, images, targets: attribute(
        model, images, method, targets=targets, layer=LAST_LAYER
    )


METHODS: dict[str, Explain] = {
    CONTRIBUTIONS: explain_by_name(CONTRIBUTIONS),
    "grad-cam": explain_by_name("grad-cam"),
    f"grad-cam at {LAST_LAYER}": explain_at_last_layer("grad-cam"),
    "layer-cam": explain_by_name("layer-cam"),
    f"layer-cam at {LAST_LAYER}": explain_at_last_layer("layer-cam"),
    "gradient-x-input": explain_by_name("gradient-x-input"),
    "centre": explain_by_name("centre"),
    "uniform": explain_by_name("uniform"),
    "integrated-gradients": explain_by_name("integrated-gradients"),
    "occlusion": explain_by_name("occlusion"),
    "rise": explain_by_name("rise"),
}
SLOW = ("integrated-gradients", "occlusion", "rise")


def hard_photos(images: ImageSet[Any]) -> Tensor:
    """Return the sorted indices of photos whose boxes are small and exclude the centre."""
    selected = []
    for batch in images.batches(BATCH):
        assert batch.masks is not None
        in_boxes = batch.masks[:, 0] > 0  # (B, H, W)
        height, width = in_boxes.shape[1:]
        # The central row and column; two of each if the number of pixels is even.
        rows, columns = (slice((side - 1) // 2, side // 2 + 1) for side in (height, width))
        covers_centre = in_boxes[:, rows, columns].flatten(1).any(dim=1)
        area = in_boxes.flatten(1).float().mean(dim=1)
        selected.append(~covers_centre & (area > 0) & (area <= MAX_AREA))
    return torch.cat(selected).nonzero()[:, 0]


def measure(model: ImageModel, images: ImageSet[Any], explain: Explain) -> dict[str, Any]:
    """Return the values (N,) of each metric in `FIGURES`, and the mean number of passes."""
    values_by_metric: dict[str, list[Tensor]] = {name: [] for name in FIGURES}
    passes = 0.0
    for batch in images.batches(BATCH, PIXELS):
        assert batch.masks is not None
        explanation = explain(model, batch.images.float() / 255, batch.labels)
        passes += explanation.cost * len(batch)
        for name, metric in FIGURES.items():
            values_by_metric[name].append(metric(explanation, batch.masks).double())
    return {name: torch.cat(values) for name, values in values_by_metric.items()} | {
        "passes": passes / len(images)
    }


def interval(differences: Tensor) -> list[float]:
    """Return the mean of paired differences (N,) with its 95 % bootstrap interval."""
    valid = differences[~differences.isnan()]
    generator = torch.Generator().manual_seed(SEED)
    samples = torch.randint(len(valid), (RESAMPLES, len(valid)), generator=generator)
    bounds = valid[samples].mean(dim=1).quantile(torch.tensor([0.025, 0.975]).double())
    return [round(float(value), 4) for value in (valid.mean(), *bounds)]


def comparison_row(
    reference: dict[str, Any], values: dict[str, Any], indices: Tensor
) -> dict[str, Any]:
    """Return a method's means, those of the contributions, and the paired differences."""
    row: dict[str, Any] = {"images": len(indices), "passes": round(values["passes"], 2)}
    for name in FIGURES:
        row[name] = round(float(values[name].nanmean()), 4)
        row[f"{name}_of_contributions"] = round(float(reference[name][indices].nanmean()), 4)
        row[f"{name}_above"] = interval(reference[name][indices] - values[name])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/boxes.json"))
    parser.add_argument(
        "--slow-every", type=int, default=8, help="slow methods explain one photo in N"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    model = zoo.load(MODEL)
    assert Ability.CLASSES in model.abilities
    sizing = model.inputs.sizing
    test, _ = with_model_classes(load_annotated(DATA, "test", size=sizing, channels=3), model)
    test = test.subset(hard_photos(test))
    all_indices = torch.arange(len(test))
    slow_indices = all_indices[:: options.slow_every]
    results = read_json(options.out)["methods"] if options.out.is_file() else {}
    reference = measure(model, test, METHODS[CONTRIBUTIONS])
    for name in options.methods:
        if name not in results:
            indices = slow_indices if name in SLOW else all_indices
            values = measure(model, test.subset(indices), METHODS[name])
            results[name] = comparison_row(reference, values, indices)
            print(f"{name}: {results[name]}", flush=True)
        rows = {name: results[name] for name in METHODS if name in results}
        settings = {"model": MODEL, "data": DATA, "images": len(test), "area": MAX_AREA}
        write_json(options.out, {**settings, "methods": rows})


if __name__ == "__main__":
    main()
