"""A mark that gives the class away: does the explanation show it where the model decides by it?

Models are trained on `planted-fashion-mnist`, whose marks tell the class in nine of ten training
images and nothing in the test images. A model decides an image by its mark where its answer changes
when the mark of a random other class is put in its place; it follows the mark where its answer was
the mark's class and becomes the other's. The explanation shows the mark if more than half of its
3x3 pixels are evidence: the patches of focus models, the hottest tenth of the pixels of maps and
post-hoc methods.

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

SOURCE = "fashion-mnist"
EPOCHS = {"focus": 12, "focus-plain": 12, "cnn": 4, "attention": 2}  # until they are tempted
UNFLIPPED = ("augment.flip=false", "augment.alternate=false")  # some marks mirror each other
SHARE = 0.1  # of the pixels, that maps and rivals show
CHUNK = 100


def with_marks(test: ImageSet, marks: Tensor) -> Tensor:
    """Return the images (N, 1, H, W) with the marks of classes (N,) in the place of theirs."""
    assert test.masks is not None
    images = test.images.clone()
    images[test.masks > 0] = patterns()[marks].reshape(-1)  # rows and columns in their order
    return images


def shown(model: ImageModel, images: ImageSet, method: str) -> Tensor:
    """Return for each image (B,) whether a method shows the mark: most of it is evidence."""
    assert images.masks is not None
    explanation = explain_by(model, images.images.float() / 255, method)
    evidence = explanation.top_evidence(SHARE) & (images.masks[:, 0] > 0)
    return evidence.sum(dim=(-2, -1)) * 2 > MARK**2


def figures(model: ImageModel, test: ImageSet, marks: Tensor, images: int) -> dict[str, Any]:
    """Return what a trained model decides by the mark, and how often it is shown."""
    generator = torch.Generator().manual_seed(0)
    number = len(patterns())
    others = (marks + torch.randint(1, number, marks.shape, generator=generator)) % number
    answers = look_over(model, test.images).logits.argmax(dim=1)
    after = look_over(model, with_marks(test, others)).logits.argmax(dim=1)
    follows = (answers == marks) & (after == others)
    decided = (answers != after).nonzero().flatten()
    some, followed = test.subset(decided[:images]), follows[decided[:images]]
    methods = (OWN,) if isinstance(model, FocusModel) else tuple(METHODS)
    if model.name == "attention":
        methods = (OWN, "contributions", "grad-cam")
    return {
        "accuracy": share_of(answers == test.labels),
        "answers_the_mark": share_of(answers == marks),
        "decided_by_the_mark": share_of(answers != after),
        "follows_the_mark": share_of(follows),
        "images": len(some),
        "followed_images": int(followed.sum()),
        "methods": {method: shares(model, some, followed, method) for method in methods},
    }


def shares(
    model: ImageModel, some: ImageSet, followed: Tensor, method: str
) -> dict[str, float | None]:
    """Return how often a method shows the mark, in all of N images and in those followed."""
    parts = torch.arange(len(some)).split(CHUNK)
    hit = torch.cat([shown(model, some.subset(part), method) for part in parts])
    return {"shown": share_of(hit), "shown_where_followed": share_of(hit[followed])}


def share_of(found: Tensor) -> float | None:
    """Return the share of N images that something was found in, None of no images."""
    return round(float(found.float().mean()), 4) if len(found) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where trainings go")
    parser.add_argument("--images", type=int, default=500, help="explained, of those decided so")
    parser.add_argument("--out", type=Path, default=Path("docs/planted.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {}
    data = f"planted-{SOURCE}"
    test = load_images(data, "test")
    marks = planted_marks(test)
    for kind, epochs in EPOCHS.items():
        changes = [f"epochs={epochs}", f"data.name={data}", *UNFLIPPED]
        model = trained(load_recipe(f"{SOURCE}-{kind}", changes), options.runs / f"{data}-{kind}")
        result[kind] = figures(model, test, marks, options.images) | {"epochs": epochs}
        print(kind, json.dumps(result[kind]), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(result, options.out)


if __name__ == "__main__":
    main()
