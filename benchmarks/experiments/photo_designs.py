"""Accuracy of crop models on designs of circuit boards that they were not trained on.

The first five digits of a board's number name its design. The training boards of `deeppcb` are
divided into two halves of designs; each half tests a model that is trained on the other.

    FOVEAL_DATA=... python benchmarks/experiments/photo_designs.py [focus-8 focus-8-distil]
"""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from photos import RESULTS, rows_of, sets_of, train_and_predict
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.files import read_json, write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.training.feature_files import with_features
from foveal.training.initial_model import initial_model
from foveal.training.sets import model_settings
from foveal.training.settings import Recipe


def halves(paths: tuple[str, ...]) -> Tensor:
    """Return the half (N,), 0 or 1, of each board's design, so that the halves are about equal."""
    designs = [Path(path).stem[:5] for path in paths]
    board_counts = [0, 0]  # by half
    half_of = {}
    for design, count in Counter(designs).most_common():
        half_of[design] = board_counts.index(min(board_counts))
        board_counts[half_of[design]] += count
    return torch.tensor([half_of[design] for design in designs])


def validate(recipe: Recipe, images: ImageSet[Any], work: Path) -> dict[str, list[float]]:
    """Return the accuracy on each half of the designs, by stage.

    The stages are `frozen` (with the backbone frozen) and `tuned` (after fine-tuning).
    """
    settings = model_settings(recipe, images)
    model = initial_model(recipe, settings)
    features = with_features(model, recipe, {"train": images}, work)["train"]
    half = halves(features.paths)
    accuracies = {"frozen": [], "tuned": []}
    for test_half in (0, 1):
        train, test = (
            features.subset((half == number).nonzero()[:, 0])
            for number in (1 - test_half, test_half)
        )
        sets = {"train": train, "val": test}
        _, logits_by_stage = train_and_predict(recipe, settings, sets, test)
        for stage, logits in logits_by_stage.items():
            accuracies[stage].append(float((logits.argmax(dim=1) == test.labels).double().mean()))
    return accuracies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="*", default=["focus-8", "focus-8-distil"])
    parser.add_argument("--work", type=Path, default=Path("runs/photos/designs"))
    parser.add_argument("--out", type=Path, default=RESULTS / "designs.json")
    options = parser.parse_args()
    keep_freed_memory()
    results = read_json(options.out) if options.out.is_file() else {}
    for name in options.rows:
        recipe = rows_of("deeppcb")[name]
        results[name] = validate(recipe, sets_of("deeppcb", recipe)["train"], options.work)
        print(name, results[name], flush=True)
        write_json(options.out, results)


if __name__ == "__main__":
    main()
