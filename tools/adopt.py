"""Addition of finished runs to the zoo, the trained models that are shipped with Foveal.

The figures (values of metrics) on the test set are written to the card, the description of a model
in its folder.

Models already in the zoo are evaluated again, for instance with a new judge.

    FOVEAL_DATA=... python tools/adopt.py runs/mnist-focus [src/foveal/zoo/weights/...]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from halve import copy_halved, is_large

from foveal import zoo
from foveal.evaluation.evaluate import evaluate_on
from foveal.foundation.model_files import DIGEST, WEIGHTS, weights_digest, write_card
from foveal.models import FocusNet, SmallCNN
from foveal.models.abilities import Ability
from foveal.models.weights import shipped_weights

ZOO = Path(__file__).parents[1] / "src" / "foveal" / "zoo" / "weights"
MEGABYTE = 1_000_000


def adopt(run: Path) -> None:
    """Copy one run into the zoo, with the figures of `foveal evaluate` on its card.

    Large weights are stored in half precision, as in `halve.py`, and evaluated in that precision.
    """
    card = zoo.card(run)
    name, data = card["model"], card["recipe"]["data"]["name"]
    model = zoo.load(run)
    has_backbone = isinstance(model, FocusNet) and model.detector.context > 0
    is_small = (
        Ability.GIVEN_KEYPOINTS in model.abilities or isinstance(model, SmallCNN)
    ) and not has_backbone
    max_bytes = MEGABYTE if is_small else 8 * MEGABYTE
    if Ability.CROPS in model.abilities:
        max_bytes = 3 * MEGABYTE
    with tempfile.TemporaryDirectory() as scratch:
        folder, copy = run, Path(scratch) / name
        card.setdefault("weights", "float32")
        if is_large(run / WEIGHTS, shipped_weights(model)) and copy_halved(run, copy, data):
            folder, card["weights"] = copy, zoo.card(copy)["weights"]
        weights = (folder / WEIGHTS).read_bytes()
        if len(weights) > max_bytes:
            raise SystemExit(
                f"The weights of {name} have {len(weights):,} bytes, above {max_bytes:,}."
            )
        card[DIGEST] = weights_digest(folder / WEIGHTS)
        figures = {**evaluate_on(str(folder), data), "model": name}
    target = ZOO / name
    target.mkdir(parents=True, exist_ok=True)
    if target.resolve() != run.resolve():
        for file in ("config.json", "metrics.csv"):
            shutil.copyfile(run / file, target / file)
    (target / WEIGHTS).write_bytes(weights)
    write_card(target, {**card, "figures": figures})
    result = figures.get("accuracy", figures.get("rebuilding_mse"))
    print(f"{name}: {result:.4f} on the test set", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders or folders of the zoo")
    for run in parser.parse_args().runs:
        adopt(run)


if __name__ == "__main__":
    main()
