"""Test accuracy of cifar10-attention and cifar10-vgg with the same recipe and several seeds.

Interrupted runs are resumed.

    FOVEAL_DATA=... python benchmarks/experiments/seeds.py [--epochs 10] [--seeds 3]

Six training runs at full width take nine hours on two cores; by default every layer has half the
width.
"""

import argparse
import json
from pathlib import Path

from trained import load_or_train, over_seeds

from foveal.datasets import load_images
from foveal.metrics.accuracy import accuracy
from foveal.training import load_recipe

NAMES = ("cifar10-vgg", "cifar10-attention")
HALF_WIDTH = ["model.backbone.stages=[[32],[32,128],[128,128],[128]]"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10, help="epochs per training run")
    parser.add_argument("--set", nargs="*", default=HALF_WIDTH, help="changes to both recipes")
    parser.add_argument("--seeds", type=int, default=3, help="training runs per model")
    parser.add_argument("--precision", default="32-true", help="precision setting of Lightning")
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/seeds.json"))
    options = parser.parse_args()
    test = load_images("cifar10", "test")
    accuracies: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(options.seeds):
        for name in NAMES:  # alternating, so that an interruption leaves equally many runs of each
            recipe = load_recipe(name, [f"epochs={options.epochs}", f"seed={seed}", *options.set])
            run = options.runs / f"{name}-{options.epochs}-{seed}"
            model = load_or_train(recipe, run, options.precision)
            accuracies[name].append(accuracy(model, test))
            print(f"{name}, seed {seed}: {accuracies[name][-1]:.2%}", flush=True)
    result = {
        "epochs": options.epochs,
        "seeds": options.seeds,
        "changes": options.set,
        "precision": options.precision,
        "models": {name: over_seeds(values) for name, values in accuracies.items()},
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
