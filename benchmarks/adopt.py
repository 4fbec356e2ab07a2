"""Evaluate finished runs on their test sets and put them into the zoo.

What is in the zoo already is evaluated anew: by a judge that came later, say.

    FOVEAL_DATA=... python benchmarks/adopt.py runs/mnist-focus [src/foveal/zoo/weights/...]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from foveal import zoo
from foveal.evaluation import evaluate_on
from foveal.files import write_json
from foveal.model_files import DIGEST, weights_digest
from foveal.models import FocusModel, GlimpseNet, SmallCNN

WEIGHTS = Path(__file__).parents[1] / "src" / "foveal" / "zoo" / "weights"
MEGABYTE = 1_000_000


def adopt(run: Path) -> None:
    """Copy one run into the zoo, with the figures of `foveal evaluate` on its card.

    Weights of more than a megabyte are kept in half precision; the figures are of these.
    """
    card = zoo.card(run)
    name, data = card["model"], card["recipe"]["data"]["name"]
    model = zoo.load(run)
    backed = isinstance(model, GlimpseNet)  # has a backbone, as attention nets have
    small = isinstance(model, FocusModel | SmallCNN) and not backed
    limit = MEGABYTE if small else 8 * MEGABYTE
    target = WEIGHTS / name
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for file in ("config.json", "metrics.csv", "model.safetensors"):
            shutil.copyfile(run / file, folder / file)
        weights = folder / "model.safetensors"
        card.setdefault("weights", "float32")
        if weights.stat().st_size > MEGABYTE:
            card["weights"] = "float16"
            halve(weights)
        if weights.stat().st_size > limit:
            raise SystemExit(f"{weights} has {weights.stat().st_size:,} bytes, above {limit:,}.")
        card[DIGEST] = weights_digest(weights)
        figures = {**evaluate_on(str(folder), data), "model": name}
        target.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors", "metrics.csv"):
            shutil.copyfile(folder / file, target / file)
    write_json(target / "card.json", {**card, "figures": figures})
    reached = figures.get("accuracy", figures.get("rebuilding_mse"))
    print(f"{name}: {reached:.4f} on the test set", flush=True)


def halve(weights: Path) -> None:
    """Rewrite a weights file in half precision."""
    state = load_file(weights)
    floats = {key: value.half() for key, value in state.items() if value.is_floating_point()}
    save_file({**state, **floats}, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="or folders of the zoo")
    for run in parser.parse_args().runs:
        adopt(run)


if __name__ == "__main__":
    main()
