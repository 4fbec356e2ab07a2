"""Effect of each loss term on keypoints learned by reconstructing the image.

A saliency recipe is trained with each term by itself and with each added to the pixel error, and
measured on the validation images. Interrupted runs are resumed.

    FOVEAL_DATA=... python benchmarks/experiments/rebuild_losses.py [--data mnist] [--epochs 3]
"""

import argparse
from pathlib import Path

from trained import load_or_train

from foveal.datasets import load_images
from foveal.foundation.files import write_json
from foveal.metrics import evidence_fraction, position_leakage
from foveal.metrics.rebuilding import rebuilding
from foveal.training import load_recipe

OFF = {"pixel": 0.0, "perceptual": 0.0, "diversity": 0.0, "movement": 0.0}
VARIANTS: dict[str, dict[str, float]] = {
    "pixel": {"pixel": 1},
    "perceptual": {"perceptual": 1},
    "pixel and perceptual": {"pixel": 1, "perceptual": 0.1},
    "pixel and diversity": {"pixel": 1, "diversity": 0.01},
    "pixel and movement": {"pixel": 1, "movement": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist", help="a dataset with a saliency recipe")
    parser.add_argument("--epochs", type=int, default=3, help="epochs per training run")
    parser.add_argument("--runs", type=Path, default=Path("runs/losses"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/rebuild_losses.json"))
    options = parser.parse_args()
    images, train = (load_images(options.data, split) for split in ("val", "train"))
    results = {}
    for number, (variant, terms) in enumerate(VARIANTS.items()):
        run = options.runs / f"{options.data}-{number}"
        changes = [f"rebuild.{key}={weight}" for key, weight in {**OFF, **terms}.items()]
        recipe = load_recipe(
            f"{options.data}-saliency", [f"epochs={options.epochs}", "keep=last", *changes]
        )
        model = load_or_train(recipe, run)
        results[variant] = {
            "weights": terms,
            **{key: round(value, 6) for key, value in rebuilding(model, images)._asdict().items()},
            "evidence_fraction": round(evidence_fraction(model, images), 4),
            "position_leakage": round(position_leakage(model, train, images), 4),
        }
        print(variant, results[variant], flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, {"data": options.data, "epochs": options.epochs, "ways": results})


if __name__ == "__main__":
    main()
