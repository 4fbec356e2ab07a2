"""Training methods against position leakage, separately and combined.

Position leakage means that the locations of a focus model's patches reveal the class. A probe is a
small network that is trained to predict the class from the locations; a reversed probe's gradient,
with the opposite sign, trains the detector to make that impossible.

The plain focus recipe of a dataset is trained for a few epochs with each method and measured on the
validation images. Interrupted runs are resumed, and methods already in the results file are
skipped.

    FOVEAL_DATA=... python benchmarks/experiments/honest.py [--data mnist] [--epochs 12]
"""

import argparse
import json
from pathlib import Path

from trained import load_or_train

from foveal.datasets import load_images
from foveal.foundation.files import write_json
from foveal.metrics import accuracy, content_following, position_leakage
from foveal.training import load_recipe

VARIANTS: dict[str, list[str]] = {
    "plain": [],
    "position noise of 1 px": ["model.jitter_px=1"],
    "detector that sees 3×3 pixels": ["model.detector.widths=[24]"],
    "detector that sees 7×7 pixels": ["model.detector.widths=[12,24]"],
    "swapped content, 0.5": ["honesty.swap=0.5"],
    "kernel dependence, 1": ["honesty.dependence=1"],
    "reversed probe, 0.3": ["honesty.adversary=0.3"],
    "reversed probe, 1": ["honesty.adversary=1"],
    "reversed probe 0.5, swapped content 0.5": ["honesty.adversary=0.5", "honesty.swap=0.5"],
    "reversed probe 0.5, dependence 0.5, swapped content 0.3": [
        "honesty.adversary=0.5",
        "honesty.dependence=0.5",
        "honesty.swap=0.3",
    ],
}
# Overrides shared by the variants below.
COMBINED = ["honesty.adversary=0.3", "honesty.dependence=0.3", "honesty.swap=0.1"]
RAMPED = [*COMBINED, "honesty.ramp=0.3", "keep=last"]
UPRIGHT = ["augment.shift=1", "augment.rotate=0", "augment.scale=0"]
WEAK = ["honesty.adversary=0.05", "honesty.dependence=0.05"]
PROBES = ["honesty.adversary=0.06", "honesty.dependence=0.02", "honesty.probes=4"]
VARIANTS |= {
    "probe 0.3, dependence 0.3, swapped content 0.1": COMBINED,
    "+ strength growing over 30% of the steps": RAMPED,
    "+ growing strength, terms on the unaugmented image": [*RAMPED, "honesty.still=true"],
    "+ growing strength, no rotation or scaling": [*RAMPED, *UPRIGHT],
    "+ the same, both weights 0.05": [*RAMPED, *UPRIGHT, *WEAK],
    "+ the same, four probes, weights 0.06 and 0.02": [*RAMPED, *UPRIGHT, *PROBES],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["mnist"])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/honest"), help="folder of the training runs"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/honest.json"))
    options = parser.parse_args()
    by_data = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for data in options.data:
        recipe = f"{data}-focus-plain"
        images, train = (load_images(data, split) for split in ("val", "train"))
        previous = by_data.get(data, {})
        results = previous["ways"] if previous.get("epochs") == options.epochs else {}
        for number, (variant, changes) in enumerate(VARIANTS.items()):
            if variant in results:
                continue
            run = options.runs / f"{data}-{number}"
            model = load_or_train(load_recipe(recipe, [f"epochs={options.epochs}", *changes]), run)
            following = content_following(model, images)
            results[variant] = {
                "accuracy": round(accuracy(model, images), 4),
                "position_leakage": round(position_leakage(model, train, images), 4),
                "content_following": round(following.content_following, 4),
                "position_following": round(following.position_following, 4),
            }
            print(data, variant, results[variant], flush=True)
            by_data[data] = {"epochs": options.epochs, "ways": results}
            options.out.parent.mkdir(exist_ok=True)
            write_json(options.out, by_data)


if __name__ == "__main__":
    main()
