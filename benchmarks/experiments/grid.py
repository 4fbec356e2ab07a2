"""Grid pointing game: fraction of a map that lies on the image of the predicted class in a mosaic.

The zoo's attention models classify mosaics of 2x2 test images of four classes. The score is the
fraction of positive heat in the quadrant of the predicted class, for the model's own maps, for the
map of each depth (stage of the backbone), and for Grad-CAM on the same network and class. A uniform
map scores 25 %. Mosaics for which another class is predicted are skipped and counted.

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
from foveal.datasets import DATASETS, Mosaics, load_images, mosaics
from foveal.explainers import attribute
from foveal.explanation import Explanation
from foveal.foundation.files import write_json
from foveal.metrics import energy_inside, pointing_game
from foveal.models import AttentionNet, ImageModel, abilities_of
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS

CHUNK = 100  # mosaics per batch
POST_HOC = ("grad-cam", "gradient-x-input")


def model_names() -> list[str]:
    """Return the names of the zoo's models with attention maps, except those of photographs."""
    return [
        name
        for name in zoo.names()
        if Ability.MAPS in abilities_of(zoo.settings(name)) and _data(name) in DATASETS
    ]


def _data(name: str) -> str:
    """Return the name of the dataset in a model's recipe."""
    return str(zoo.card(name)["recipe"].get("data", {}).get("name"))


def explanations(model: ImageModel, images: Tensor) -> Iterator[tuple[str, Explanation]]:
    """Yield the explanations of a batch of mosaics, each with its name."""
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
    for indices in torch.arange(len(test)).split(CHUNK):
        batch = Mosaics(test.images[indices], test.classes[indices])
        for method, explanation in explanations(model, batch.images.float() / 255):
            quadrants = batch.quadrant_of(explanation.predictions)
            energies.setdefault(method, []).append(energy_inside(explanation, quadrants))
            hits.setdefault(method, []).append(pointing_game(explanation, quadrants))
    energy = {method: torch.cat(parts) for method, parts in energies.items()}
    # The energy is NaN if the predicted class is not in the mosaic.
    scored_count = int((~energy["own maps"].isnan()).sum())
    return {
        "answered": scored_count,
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
    for name in model_names():
        test = load_images(_data(name), "test")
        result[name] = scores(name, mosaics(test, options.mosaics))
        print(name, json.dumps(result[name], indent=2), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
