"""Benefit of a detector trained without labels when labels are few.

Compares `mnist-focus-unlabelled`, whose detector was trained on all MNIST images without labels,
with the same network trained from the few labels only. Test accuracy is measured for several random
draws of the labelled images.

    FOVEAL_DATA=... python benchmarks/experiments/few_labels.py [--labels 600] [--draws 5]
"""

import argparse
import json
import statistics
from pathlib import Path

from trained import load_or_train

from foveal.datasets import load_images
from foveal.metrics.accuracy import accuracy
from foveal.training import load_recipe

NAME = "mnist-focus-unlabelled"
VARIANTS: dict[str, list[str]] = {
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
    accuracies: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    shared_settings = [f"data.limit={options.labels}", f"epochs={options.epochs}", "batch_size=50"]
    # Choosing the best epoch by validation would use further labels.
    shared_settings.append("keep=last")
    for draw in range(options.draws):
        for number, (variant, changes) in enumerate(VARIANTS.items()):
            recipe = load_recipe(
                NAME, [*shared_settings, *changes, f"data.draw={draw}", f"seed={draw}"]
            )
            run = options.runs / f"{options.labels}-{draw}-{number}"
            accuracies[variant].append(accuracy(load_or_train(recipe, run), test))
            print(f"draw {draw}, {variant}: {accuracies[variant][-1]:.2%}", flush=True)
    result = {
        "labels": options.labels,
        "draws": options.draws,
        "epochs": options.epochs,
        "ways": {
            variant: {
                "mean": round(statistics.mean(values), 5),
                "spread": round(statistics.stdev(values), 5) if len(values) > 1 else 0.0,
                "accuracies": [round(value, 5) for value in values],
            }
            for variant, values in accuracies.items()
        },
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
