"""Variance over seeds of the test accuracy of `megapixel-mnist-focus`.

Each model is measured after its last epoch. Seed 0 is the one in the zoo. Interrupted runs are
resumed.

    FOVEAL_DATA=... python benchmarks/experiments/megapixel_seeds.py [--seeds 3]
"""

import argparse
from pathlib import Path

from trained import load_or_train, over_seeds

from foveal.datasets import load_large
from foveal.foundation.files import write_json
from foveal.metrics import evaluate
from foveal.training import load_recipe

NAME = "megapixel-mnist-focus"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/megapixel_seeds.json"))
    options = parser.parse_args()
    test = load_large("megapixel-mnist", "test")
    accuracies: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        model = load_or_train(load_recipe(NAME, [f"seed={seed}"]), options.runs / f"{NAME}-{seed}")
        figures = evaluate(model, test, batch_size=16)
        for task in (*model.tasks, "mean"):
            accuracies.setdefault(task, []).append(figures[f"accuracy_{task}"])
        print(seed, {task: values[-1] for task, values in accuracies.items()}, flush=True)
    tasks = {task: over_seeds(values) for task, values in accuracies.items()}
    write_json(options.out, {"model": NAME, "seeds": options.seeds, "tasks": tasks})


if __name__ == "__main__":
    main()
