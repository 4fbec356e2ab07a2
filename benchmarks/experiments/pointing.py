"""Pointing game on a complete test set, for explanations of fewer than a hundred passes.

`compare` uses 1,000 images, which leaves an error of a few tenths of a percent if nearly all are
hits. Here the focus models and controls of a dataset with annotations explain all test images, and
the CNN is explained by the methods that need fewer than a hundred passes.

    FOVEAL_DATA=... python benchmarks/experiments/pointing.py [--data cluttered-mnist-60]
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from foveal import zoo
from foveal.datasets import ImageSet, load_images
from foveal.explainers import OWN, explainer
from foveal.foundation.errors import UserError
from foveal.foundation.files import write_json
from foveal.metrics import PointingGame
from foveal.models.abilities import Ability

KINDS = ("focus", "centre", "random", "cnn")
POST_HOC = ("grad-cam", "gradient-x-input", "integrated-gradients")
CHUNK = 500


def hits(name: str, test: ImageSet) -> dict[str, float]:
    """Return, by method, the fraction of images in which the explanation hits the annotation."""
    model = zoo.load(name)
    if test.masks is None:
        raise UserError(f"{test.name} has no annotations: the pointing game needs masks.")
    fractions = {}
    for method in (OWN,) if Ability.GIVEN_KEYPOINTS in model.abilities else POST_HOC:
        game = PointingGame()
        for indices in torch.arange(len(test)).split(CHUNK):
            explanation = explainer(method)(model, test.images[indices].float() / 255)
            game.update(explanation, test.masks[indices])
        fractions[method] = round(float(game.compute()), 4)
        print(name, method, fractions[method], flush=True)
    return fractions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cluttered-mnist-60")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pointing.json"))
    options = parser.parse_args()
    test = load_images(options.data, "test")
    names = [name for kind in KINDS if (name := f"{options.data}-{kind}") in zoo.names()]
    if not names:
        raise UserError(
            f"The zoo contains no models of {options.data}. Train one, or choose other --data."
        )
    result: dict[str, Any] = {"data": options.data, "images": len(test), "models": {}}
    for name in names:
        result["models"][name] = hits(name, test)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
