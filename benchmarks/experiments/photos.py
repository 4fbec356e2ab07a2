"""Focus models on photographs against the same backbone on the whole image, one row per model.

Each row is stored in a file, with the prediction for every tested image; the same command continues
an interrupted run:

    FOVEAL_DATA=... python benchmarks/experiments/photos.py [deeppcb ...] [--only whole-320 ...]

`deeppcb` is tested on its own test split. The other datasets are tested by five-fold
cross-validation whose folds divide no group; a tenth of the images outside the fold is used for
validation. Every row reports three stages: `linear` is a linear layer on the mean vector of the
frozen backbone, `frozen` is the model with the backbone frozen, and `tuned` is the same model after
fine-tuning of the last of the backbone's five stages; the stages (depths) 1 to 4 stay frozen.
Settings and epochs of fine-tuning are those of the dataset's recipe for all rows.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets import ImageSet, load_images, load_whole
from foveal.datasets.splits import folds
from foveal.foundation.files import read_json, write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.metrics.efficiency import latency_ms, macs
from foveal.metrics.evidence import covered_fraction, evidence_fraction
from foveal.metrics.interval import bootstrap
from foveal.metrics.observing import observe_all
from foveal.models import build_model
from foveal.models.abilities import Ability
from foveal.training.distribution.devices import Devices
from foveal.training.feature_files import with_features
from foveal.training.features import predict_features
from foveal.training.fitting import fit
from foveal.training.initial_model import initial_model, start_on_features
from foveal.training.linear import fit_linear, labelled_vectors
from foveal.training.objectives.crops.settings import Crops
from foveal.training.options import Options
from foveal.training.recipe import load_recipe
from foveal.training.sets import model_settings, train_and_val
from foveal.training.settings import Recipe

TIMES = "times.json"  # latencies of all rows, from one run
TESTED = "tested.json"  # the images that the rows of a dataset are tested on
RESULTS = Path(__file__).parent.parent / "results" / "photos"
FOLDS = 5
# Short sides in pixels, by dataset, at which models of the whole image are trained.
WHOLE = {
    "deeppcb": (96, 160, 224, 320, 448, 640),
    "magnetic-tile": (96, 160, 224),
    "clothing": (96, 160, 224),
    "isic2017": (96, 160, 224),
}
# Short sides in pixels at which attention models of the whole image are trained.
ATTENTION = {"deeppcb": 320, "magnetic-tile": 224, "clothing": 224, "isic2017": 224}
DISTIL = ["crops.select=distil", "crops.head_epochs=8"]
GUMBEL = ["crops.select=gumbel", "crops.head_epochs=16"]
# Focus models by name: overrides of the dataset's recipe.
FOCUS: dict[str, dict[str, list[str]]] = {
    "deeppcb": {
        "focus-8": [],
        "focus-8-glance": ["model.scales=[0,1]", "model.counts=[1,8]"],
        "focus-8-tokens": ["model.mix=tokens"],
        "focus-8-attention": ["model.mix=attention"],
        "focus-8-perturbed": ["crops.select=perturbed"],
        "focus-8-peaks": ["crops.select=peaks", "crops.head_epochs=8", "model.learned=false"],
        "focus-8-greedy": ["crops.select=greedy", "crops.head_epochs=8"],
        "focus-8-distil": DISTIL,
        "focus-4-distil": ["model.counts=[4]", *DISTIL],
    },
    "magnetic-tile": {
        "focus": [],
        "focus-gumbel": GUMBEL,
        "focus-2": ["model.counts=[1,2]"],
        "focus-2-gumbel": ["model.counts=[1,2]", *GUMBEL],
    },
    "clothing": {
        "focus": [],
        "focus-192": ["model.patch_size=192", "data.short_side=288"],
    },
    "isic2017": {"focus": []},
}


def rows_of(data: str) -> dict[str, Recipe]:
    """Return the recipe of each row of a dataset, by its name."""
    name = "pcb-focus" if data == "deeppcb" else f"{data}-focus"
    recipe = load_recipe(name)
    rows = {row: load_recipe(name, list(changes)) for row, changes in FOCUS[data].items()}
    backbone = {"name": "efficientnet-lite0", "weights": "imagenet"}
    training = replace(recipe.training, linear_start=True)
    for kind, side in [*(("whole", side) for side in WHOLE[data]), ("attention", ATTENTION[data])]:
        model: dict[str, Any] = {"name": "plain", "backbone": backbone}
        if kind == "attention":
            model |= {"name": "attention", "depths": [5], "compatibility": "pc"}
        sized = replace(recipe.data, short_side=side)
        rows[f"{kind}-{side}"] = replace(
            recipe, data=sized, training=training, model=model, crops=Crops()
        )
    return rows


def sets_of(data: str, recipe: Recipe) -> dict[str, ImageSet[Any]]:
    """Return the images of a dataset by split: `train`, `val` and `test`, or `all` to be folded."""
    options: dict[str, Any] = {"size": recipe.data.sizing, "channels": 3}
    if data == "deeppcb":
        return {split: load_images(data, split, **options) for split in ("train", "val", "test")}
    return {"all": load_whole(data, **options)}


def split_sets(
    sets: dict[str, ImageSet[Any]], seed: int
) -> Iterator[tuple[ImageSet[Any], ImageSet[Any], ImageSet[Any]]]:
    """Yield the training, validation and test images, once or for each fold."""
    if "all" not in sets:
        yield sets["train"], sets["val"], sets["test"]
        return
    images = sets["all"]
    # Sorted by path, because the order of photographs differs between sizes.
    order = torch.tensor(sorted(range(len(images)), key=lambda index: images.paths[index]))
    groups = [images.groups[index] for index in order.tolist()] if images.groups else []
    fold = torch.empty(len(images), dtype=torch.long)
    fold[order] = folds(images.labels[order], FOLDS, groups, seed=seed)
    for number in range(FOLDS):
        remaining = train_and_val(images, (fold != number).nonzero()[:, 0])
        yield remaining["train"], remaining["val"], images.subset((fold == number).nonzero()[:, 0])


def measure(
    data: str, name: str, recipe: Recipe, work: Path, tested_file: Path, first_only: bool = False
) -> dict[str, Any]:
    """Train a recipe's models; return its predictions for all tested images, and its cost.

    The model of the first fold is stored, with the paths of its test images.

    Args:
        data: name of the dataset.
        name: name of the row.
        recipe: the recipe.
        work: folder for features and stored models.
        tested_file: file of the tested images, which all rows of a dataset share.
        first_only: whether to train only the model of the first fold; nothing is returned then.
    """
    started = time.perf_counter()
    sets = sets_of(data, recipe)
    first_set = next(iter(sets.values()))
    settings = model_settings(recipe, sets.get("train", first_set))
    model: Any = initial_model(recipe, settings)
    features = with_features(model, recipe, sets, work / "features" / _feature_folder(name, recipe))
    features_ready = time.perf_counter()
    predictions: dict[str, dict[str, int]] = {"linear": {}, "frozen": {}, "tuned": {}}
    labels: dict[str, int] = {}
    val_results: list[tuple[Tensor, Tensor]] = []
    for train, val, test in split_sets(features, recipe.training.seed):
        model, logits_by_stage = train_and_predict(
            recipe, settings, {"train": train, "val": val}, test
        )
        val_results.append((predict_features(model, val.images).argmax(dim=1), val.labels))
        linear = fit_linear(
            labelled_vectors(train),
            labelled_vectors(val),
            len(test.classes),
            recipe.training.balance,
        )
        logits_by_stage["linear"] = linear(test.images.global_vectors[:, 0])
        if not labels:
            (work / "models" / name).mkdir(parents=True, exist_ok=True)
            model.save_weights(work / "models" / name)
            write_json(work / "models" / name / TESTED, list(test.paths))
            if first_only:
                return {}
        labels |= dict(zip(test.paths, test.labels.tolist(), strict=True))
        for stage, logits in logits_by_stage.items():
            predictions[stage] |= dict(zip(test.paths, logits.argmax(dim=1).tolist(), strict=True))
        print(f"{data} {name}: {_accuracies(predictions, labels)}", flush=True)
    paths = sorted(labels)
    _check_tested(tested_file, paths, labels, first_set)
    row: dict[str, Any] = {
        "data": data,
        "row": name,
        "recipe": recipe.to_dict(),
        "answers": {
            stage: " ".join(str(by_path[path]) for path in paths)
            for stage, by_path in predictions.items()
        },
        "validated_balanced": _balanced_accuracy(val_results),
        "features_seconds": round(features_ready - started, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return row | _cost(model.eval(), sets.get("test", first_set))


def train_and_predict(
    recipe: Recipe, settings: dict[str, Any], sets: dict[str, ImageSet[Any]], test: ImageSet[Any]
) -> tuple[Any, dict[str, Tensor]]:
    """Return a model trained on features, and its logits for test features, frozen and tuned.

    Args:
        recipe: the recipe.
        settings: complete settings of its model.
        sets: features, as `train` and `val`.
        test: features that the model is tested on.
    """
    model: Any = initial_model(recipe, settings)
    start_on_features(model, recipe, sets)
    logits_by_stage = {"frozen": predict_features(model, test.images)}
    options = Options(
        resume=False,
        devices=Devices(),
        precision="32-true",
        progress=False,
        callbacks=(),
        notify=None,
        warn=print,
    )
    with tempfile.TemporaryDirectory() as out:
        model.load_state_dict(fit(model, recipe, sets, Path(out), options).weights())
    return model, logits_by_stage | {"tuned": predict_features(model, test.images)}


def _feature_folder(name: str, recipe: Recipe) -> str:
    """Return the name of a row's folder of features, shared by rows of the same crops or size."""
    # A model of the whole image has no scales and counts of crops.
    crops = [*recipe.model.get("scales", ()), "x", *recipe.model.get("counts", ())]
    return name.partition("-")[2] if len(crops) == 1 else "-".join(map(str, crops))


def _check_tested(
    file: Path, paths: list[str], labels: dict[str, int], images: ImageSet[Any]
) -> None:
    """Record the tested images of a dataset, or exit if an earlier row tested other images."""
    groups = dict(zip(images.paths, images.groups, strict=True)) if images.groups else {}
    is_folded = bool(groups) and all(path in groups for path in paths)
    expected = {
        "paths": [_short(path) for path in paths],
        "labels": [labels[path] for path in paths],
        "groups": [groups[path] for path in paths] if is_folded else [],
    }
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, expected)
    elif read_json(file) != expected:
        raise SystemExit(f"{file} holds other images: remove the rows next to it.")


def _short(path: str) -> str:
    """Return the last three parts of a path, which do not depend on the machine."""
    return "/".join(Path(path).parts[-3:])


def _accuracies(predictions: dict[str, dict[str, int]], labels: dict[str, int]) -> dict[str, float]:
    """Return the accuracy of each stage on the images predicted so far."""
    return {
        stage: round(sum(by_path[path] == labels[path] for path in by_path) / len(by_path), 4)
        for stage, by_path in predictions.items()
    }


def _balanced_accuracy(val_results: list[tuple[Tensor, Tensor]]) -> float:
    """Return the mean per-class accuracy on the validation images of all folds together."""
    predictions, labels = (torch.cat(parts) for parts in zip(*val_results, strict=True))
    return round(bootstrap((predictions == labels).double(), labels, balanced=True).value, 4)


def _cost(model: Any, images: ImageSet[Any]) -> dict[str, Any]:
    """Return multiply-adds, and the fraction of the pixels that is evidence."""
    size = (images.images.shape[-2], images.images.shape[-1])
    sample = images.subset(torch.arange(0, len(images), max(1, len(images) // 100)))
    figures: dict[str, Any] = {
        "size": list(size),
        "macs": macs(model, size),
        "evidence_fraction": 1.0,
    }
    if Ability.CROPS in model.abilities:
        observed = observe_all(model, sample.images)
        figures["evidence_fraction"] = evidence_fraction(model, sample, observed=observed)
        figures["covered_fraction"] = covered_fraction(model, sample, observed=observed)
    return figures


def measure_latency(out: Path, datasets: list[str], rounds: int = 9) -> dict[str, dict[str, float]]:
    """Return the median milliseconds per image of all measured rows, timed in alternation."""
    models: dict[tuple[str, str], Any] = {}
    for data in datasets:
        for name, recipe in rows_of(data).items():
            path = out / data / f"{name}.json"
            if path.is_file():
                size = tuple(read_json(path)["size"])
                model = build_model({**recipe.model, "num_classes": 2}).eval()
                models[data, name] = (model, size)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in models}
    for _ in range(rounds):
        for key, (model, size) in models.items():
            times[key].append(latency_ms(model, size, repeats=1))
    medians: dict[str, dict[str, float]] = {data: {} for data in datasets}
    for (data, name), values in times.items():
        medians[data][name] = round(statistics.median(values), 1)
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="*", default=list(WHOLE))
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--work", type=Path, default=Path("runs/photos"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--first", action="store_true", help="only train the first fold's model")
    parser.add_argument("--time", action="store_true", help="only time all rows, in alternation")
    options = parser.parse_args()
    keep_freed_memory()
    if options.time:
        write_json(options.out / TIMES, measure_latency(options.out, options.data))
        return
    for data in options.data:
        for name, recipe in rows_of(data).items():
            path = options.out / data / f"{name}.json"
            if options.only and name not in options.only:
                continue
            is_measured = path.is_file() and read_json(path)["recipe"] == recipe.to_dict()
            if is_measured and not options.first:
                continue
            work, tested_file = options.work / data, path.parent / TESTED
            row = measure(data, name, recipe, work, tested_file, options.first)
            if options.first:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, row)


if __name__ == "__main__":
    main()
