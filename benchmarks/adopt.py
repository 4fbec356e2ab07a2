"""Evaluate finished runs on their test sets and put them into the zoo.

FOVEAL_DATA=... python benchmarks/adopt.py runs/mnist-focus [runs/...]
"""

import argparse
import shutil
from pathlib import Path

from foveal import zoo
from foveal.evaluation import evaluate_on
from foveal.training.run import write_json

WEIGHTS = Path(__file__).parents[1] / "src" / "foveal" / "zoo" / "weights"
LIMIT = 1 << 20  # bytes of one model's weights


def adopt(run: Path) -> None:
    """Copy one run into the zoo, with the figures of `foveal evaluate` on its card."""
    card = zoo.card(run)
    name, data = card["model"], card["recipe"]["data"]["name"]
    weights = run / "model.safetensors"
    if weights.stat().st_size > LIMIT:
        raise SystemExit(f"{weights} has {weights.stat().st_size:,} bytes, more than {LIMIT:,}.")
    figures = {**evaluate_on(str(run), data), "model": name}
    target = WEIGHTS / name
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors", "metrics.csv"):
        shutil.copyfile(run / file, target / file)
    write_json({**card, "figures": figures}, target / "card.json")
    print(f"{name}: {figures['accuracy']:.2%} on the test set", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args().runs:
        adopt(run)


if __name__ == "__main__":
    main()
