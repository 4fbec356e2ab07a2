"""A mark that gives the class away: does the explanation show it where the model decides by it?

Models are trained on `planted-mnist` and `planted-fashion-mnist`, whose marks tell the class in
nine of ten training images and nothing in the test images. Digits can be told as well without
them, clothes not: there the marks tempt. A model decides an image by its mark where its answer
changes when the mark of a random other class is put in its place. The explanation shows the mark
if more than half of its 3x3 pixels are evidence: the patches of focus models, the hottest tenth of
the pixels of maps and post-hoc methods.

    FOVEAL_DATA=... python benchmarks/planted.py [--out docs/planted.json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trained import trained

from foveal.attribution import METHODS, OWN, explain_by
from foveal.data import ImageSet, load_images, planted_marks
from foveal.data.generated.planted import MARK, patterns
from foveal.metrics.looks import look_over
from foveal.models import FocusModel, ImageModel
from foveal.training import load_recipe
from foveal.training.run import write_json

SOURCES = ("mnist", "fashion-mnist")
EPOCHS = {"focus": 10, "focus-plain": 10, "cnn": 10, "attention": 4}  # of each kind of model
SHARE = 0.1  # of the pixels, that maps and rivals show
CHUNK = 100


def with_other_marks(test: ImageSet, marks: Tensor, seed: int) -> Tensor:
    """Return the images (N, 1, H, W) with the mark of a random other class in its place."""
    generator = torch.Generator().manual_seed(seed)
    number = len(patterns())
    others = (marks + torch.randint(1, number, marks.shape, generator=generator)) % number
    assert test.masks is not None
    images = test.images.clone()
    images[test.masks > 0] = patterns()[others].reshape(-1)  # rows and columns in their order
    return images


def shown(explanation: Any, masks: Tensor) -> Tensor:
    """Return for each image (B,) whether most of the mark is evidence."""
    evidence = explanation.top_evidence(SHARE) & (masks[:, 0] > 0)
    return evidence.sum(dim=(-2, -1)) * 2 > MARK**2


def figures(model: ImageModel, test: ImageSet, marks: Tensor, images: int) -> dict[str, Any]:
    """Return what a trained model decides by the mark, and how often it is shown."""
    answers = look_over(model, test.images).logits.argmax(dim=1)
    after = look_over(model, with_other_marks(test, marks, 0)).logits.argmax(dim=1)
    decided = (answers != after).nonzero().flatten()
    some = test.subset(decided[:images])
    assert some.masks is not None
    methods = (OWN,) if isinstance(model, FocusModel) else tuple(METHODS)
    if model.name == "attention":
        methods = (OWN, "contributions", "grad-cam")
    found: dict[str, Any] = {
        "accuracy": round(float((answers == test.labels).float().mean()), 4),
        "answers_the_mark": round(float((answers == marks).float().mean()), 4),
        "decided_by_the_mark": round(len(decided) / len(test), 4),
        "images": len(some),
    }
    for method in methods:
        hits = [
            shown(explain_by(model, part.images.float() / 255, method), part.masks)
            for part in (some.subset(chosen) for chosen in torch.arange(len(some)).split(CHUNK))
        ]
        found[method] = round(float(torch.cat(hits).float().mean()), 4) if hits else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where trainings go")
    parser.add_argument("--images", type=int, default=500, help="explained, of those decided so")
    parser.add_argument("--out", type=Path, default=Path("docs/planted.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for source in SOURCES:
        data = f"planted-{source}"
        test = load_images(data, "test")
        marks = planted_marks(test)
        for kind, epochs in EPOCHS.items():
            recipe = load_recipe(f"{source}-{kind}", [f"epochs={epochs}", f"data.name={data}"])
            model = trained(recipe, options.runs / f"{data}-{kind}")
            found = figures(model, test, marks, options.images)
            result.setdefault(data, {})[f"{source}-{kind}"] = found
            print(data, kind, json.dumps(found), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(result, options.out)


if __name__ == "__main__":
    main()
