"""Benefit of a detector trained without labels when labels are few.

Compares `mnist-focus-unlabelled`, whose detector was trained on all MNIST images without labels,
with the same network trained from the few labels alone. Test accuracy, for several random draws of
the labelled images.

    FOVEAL_DATA=... python benchmarks/experiments/few_labels.py [--labels 600] [--draws 5]
"""

import argparse
import json
import statistics
from pathlib import Path

from trained import trained

from foveal.datasets import load_images
from foveal.metrics.accuracy import accuracy
from foveal.training import load_recipe

NAME = "mnist-focus-unlabelled"
WAYS: dict[str, list[str]] = {
    "unlabelled, frozen": [],
    "unlabelled, fine-tuned": ["training.freeze=''"],
    "labelled": ["training.freeze=''", "training.start=''"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=int, default=600)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/few-labels"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/few_labels.json"))
    options = parser.parse_args()
    test = load_images("mnist", "test")
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    few = [f"data.limit={options.labels}", f"epochs={options.epochs}", "batch_size=50"]
    few.append("keep=last")  # choosing the best on validation would use further labels
    for draw in range(options.draws):
        for number, (way, changes) in enumerate(WAYS.items()):
            recipe = load_recipe(NAME, [*few, *changes, f"data.draw={draw}", f"seed={draw}"])
            run = options.runs / f"{options.labels}-{draw}-{number}"
            found[way].append(accuracy(trained(recipe, run), test))
            print(f"draw {draw}, {way}: {found[way][-1]:.2%}", flush=True)
    result = {
        "labels": options.labels,
        "draws": options.draws,
        "epochs": options.epochs,
        "ways": {
            way: {
                "mean": round(statistics.mean(values), 5),
                "spread": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0,
                "accuracies": [round(value, 5) for value in values],
            }
            for way, values in found.items()
        },
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
