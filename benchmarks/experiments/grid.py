"""Grid pointing game: fraction of heat on the predicted one of four images in a mosaic.

The zoo's attention models classify mosaics of 2x2 test images of four classes. The score is the
fraction of positive heat in the quadrant of the predicted class, for the model's own maps, for
each single depth, and for Grad-CAM on the same network and class. A uniform map scores 25 %.
Mosaics for which another class is predicted are skipped and counted.

    FOVEAL_DATA=... python benchmarks/experiments/grid.py [--mosaics 1000]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal import zoo
from foveal.datasets import Mosaics, load_images, mosaics
from foveal.explainers import attribute
from foveal.explanation import Explanation
from foveal.foundation.files import write_json
from foveal.metrics import energy_inside, pointing_game
from foveal.models import MODELS, AttentionNet, ImageModel
from foveal.models.contributions import CONTRIBUTIONS
from foveal.training import load_recipe

CHUNK = 100
POST_HOC = ("grad-cam", "gradient-x-input")


def names() -> list[str]:
    """Return the names of the zoo's models with attention maps."""
    kinds = {name: MODELS[load_recipe(name).model["name"]] for name in zoo.names()}
    return [name for name, kind in kinds.items() if issubclass(kind, ImageModel)]


def explanations(model: ImageModel, images: Tensor) -> Iterator[tuple[str, Explanation]]:
    """Yield the explanations of a batch of mosaics with their names."""
    explanation = model.explain(images)
    yield "own maps", explanation
    assert explanation.maps is not None
    if explanation.maps.shape[1] > 1:
        for depth in range(explanation.maps.shape[1]):
            yield (
                f"own map {depth + 1}",
                replace(explanation, maps=explanation.maps[:, depth : depth + 1]),
            )
    if isinstance(model, AttentionNet):
        yield CONTRIBUTIONS, model.contributions(images)
    for method in POST_HOC:
        yield method, attribute(model, images, method, targets=explanation.predictions)


def scores(name: str, test: Mosaics) -> dict[str, Any]:
    """Return the scores of a model's explanations of mosaics."""
    model = zoo.load(name)
    energies: dict[str, list[Tensor]] = {}
    hits: dict[str, list[Tensor]] = {}
    for part in torch.arange(len(test)).split(CHUNK):
        batch = Mosaics(test.images[part], test.classes[part])
        for method, explanation in explanations(model, batch.images.float() / 255):
            truth = batch.quadrant_of(explanation.predictions)
            energies.setdefault(method, []).append(energy_inside(explanation, truth))
            hits.setdefault(method, []).append(pointing_game(explanation, truth))
    energy = {method: torch.cat(parts) for method, parts in energies.items()}
    scored = int((~energy["own maps"].isnan()).sum())
    return {
        "answered": scored,
        "mosaics": len(test),
        "methods": {
            method: {
                "energy_inside": round(float(values.nanmean()), 4),
                "hits": round(float(torch.cat(hits[method]).nanmean()), 4),
            }
            for method, values in energy.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mosaics", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/grid.json"))
    options = parser.parse_args()
    result = {}
    for name in names():
        test = load_images(load_recipe(name).data.name, "test")
        result[name] = scores(name, mosaics(test, options.mosaics))
        print(name, json.dumps(result[name], indent=2), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
