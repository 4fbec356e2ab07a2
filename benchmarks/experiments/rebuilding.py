"""Reconstruction from learned keypoints against random, grid, Harris and centre keypoints.

In each dataset's recipe, the detector is replaced by each of these, with patches of the same number
and size, and the decoder is trained in the same way. Errors are measured on the test images and
written to benchmarks/results/rebuilding.json and to the zoo's cards. Interrupted runs are resumed.

    FOVEAL_DATA=... python benchmarks/experiments/rebuilding.py [--data mnist]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from trained import load_or_train

from foveal import zoo
from foveal.datasets import load_images
from foveal.foundation.files import write_json
from foveal.metrics.rebuilding import rebuilding
from foveal.training import load_recipe

DATASETS = ("mnist", "fashion-mnist", "cifar10")
CONTROLS = ("random", "grid", "harris", "centre")


def errors(data: str, runs: Path) -> dict[str, Any]:
    """Return the errors of a dataset's saliency model and of its controls."""
    name = f"{data}-saliency"
    test = load_images(data, "test")
    by_detector: dict[str, Any] = {}
    for detector in ("learned", *CONTROLS):
        changes = [] if detector == "learned" else [f"model.detector.name={detector}"]
        run = runs / (name if detector == "learned" else f"{name}-{detector}")
        values = rebuilding(load_or_train(load_recipe(name, changes), run), test)
        by_detector[detector] = {key: round(value, 6) for key, value in values._asdict().items()}
        print(f"{name}, {detector}: {values}", flush=True)
    best = min(CONTROLS, key=lambda control: by_detector[control]["rebuilding_mse"])
    ratio = by_detector["learned"]["rebuilding_mse"] / by_detector[best]["rebuilding_mse"]
    model_settings = load_recipe(name).model
    return {
        "keypoints": model_settings["detector"]["keypoints"],
        "patch_size": model_settings["patch_size"],
        "errors": by_detector,
        "best_control": best,
        "lower_by": round(1 - ratio, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATASETS, default=DATASETS)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rebuilding.json"))
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for data in options.data:
        result[data] = errors(data, options.runs)
        options.out.parent.mkdir(exist_ok=True)
        write_json(options.out, result)
        name = f"{data}-saliency"
        if name in zoo.names():
            card = {**zoo.card(name), "controls": result[data]}
            write_json(zoo.folder(name) / "card.json", card)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
