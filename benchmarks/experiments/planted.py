"""Planted marks: whether explanations show the mark that a model's decision depends on.

Models are trained on `planted-fashion-mnist`, whose marks reveal the class in nine of ten training
images, but not in the test images. A model's decision depends on the mark if its prediction changes
when the mark is replaced by that of a random other class; it follows the mark if the prediction
changes from the first mark's class to the second's. The explanation touches the mark if any of its
3x3 pixels are evidence, and shows it if more than half of them are. Evidence is the patches of
focus models (without the thumbnail), or the hottest tenth of the pixels of maps. In addition to the
zoo's recipes, variants are trained that should make a focus model show the mark.

    FOVEAL_DATA=... python benchmarks/experiments/planted.py
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trained import load_or_train

from foveal.datasets import ImageSet, load_images, planted_marks
from foveal.datasets.generated.planted import MARK, patterns
from foveal.explainers import OWN, explainer, post_hoc_methods
from foveal.foundation.files import write_json
from foveal.metrics.observing import observe_all
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.training import load_recipe

SOURCE = "fashion-mnist"
UNFLIPPED = ["augment.flip=false", "augment.alternate=false"]  # some marks mirror each other
UPRIGHT = ["augment.shift=1", "augment.rotate=0", "augment.scale=0"]  # as clothes are trained
# By recipe: variants of its training settings. The epochs suffice to learn the mark.
VARIANTS: dict[str, dict[str, list[str]]] = {
    "fashion-mnist-focus": {
        "": [],
        "dependence 0.3, swapped content 0.5": ["honesty.dependence=0.3", "honesty.swap=0.5"],
        "8 patches": ["model.detector.keypoints=8"],
        "9×9 patches": ["model.patch_size=9"],
    },
    "mnist-glimpse": {
        "": UPRIGHT,
        "7×7 patches": [*UPRIGHT, "model.patch_size=7"],
        "7×7 patches, 30 epochs": [*UPRIGHT, "model.patch_size=7", "epochs=30"],
        "9×9 patches": [*UPRIGHT, "model.patch_size=9"],
    },
    "fashion-mnist-focus-plain": {"": []},
    "fashion-mnist-cnn": {"": []},
    "fashion-mnist-attention": {"": []},
}
EPOCHS = {"fashion-mnist-cnn": 4, "fashion-mnist-attention": 2}  # 12 for the others
EVIDENCE_FRACTION = 0.1  # of the pixels, for maps and post-hoc methods
CHUNK = 100  # images per batch


def with_marks(test: ImageSet, marks: Tensor) -> Tensor:
    """Return the images (N, 1, H, W) with their marks replaced by those of classes (N,)."""
    assert test.masks is not None
    images = test.images.clone()
    images[test.masks > 0] = patterns()[marks].reshape(-1)  # rows and columns in their order
    return images


def pixels_shown(model: ImageModel, images: ImageSet, method: str) -> Tensor:
    """Return the number of evidence pixels (2, B) of each image, and of its mark."""
    assert images.masks is not None
    explanation = explainer(method)(model, images.images.float() / 255)
    evidence = explanation.top_evidence(EVIDENCE_FRACTION)
    return torch.stack([evidence, evidence & (images.masks[:, 0] > 0)]).sum(dim=(-2, -1))


def figures(model: ImageModel, test: ImageSet, marks: Tensor, max_images: int) -> dict[str, Any]:
    """Return how often a model's decisions depend on the mark, and how often it is shown.

    Args:
        model: the model.
        test: test images.
        marks: (N,), the class of each image's mark.
        max_images: maximum number of images to explain; only those whose decision depends on the
            mark are explained.
    """
    generator = torch.Generator().manual_seed(0)
    class_count = len(patterns())
    new_marks = (
        marks + torch.randint(1, class_count, marks.shape, generator=generator)
    ) % class_count
    predictions = observe_all(model, test.images).logits.argmax(dim=1)
    new_predictions = observe_all(model, with_marks(test, new_marks)).logits.argmax(dim=1)
    follows_mark = (predictions == marks) & (new_predictions == new_marks)
    indices = (predictions != new_predictions).nonzero().flatten()
    sample, followed = test.subset(indices[:max_images]), follows_mark[indices[:max_images]]
    methods = (OWN,) if Ability.GIVEN_KEYPOINTS in model.abilities else post_hoc_methods()
    if model.name == "attention":
        methods = (OWN, "contributions", "grad-cam")
    return {
        "accuracy": fraction(predictions == test.labels),
        "answers_the_mark": fraction(predictions == marks),
        "decided_by_the_mark": fraction(predictions != new_predictions),
        "follows_the_mark": fraction(follows_mark),
        "images": len(sample),
        "followed_images": int(followed.sum()),
        "methods": {method: mark_rates(model, sample, followed, method) for method in methods},
    }


def mark_rates(
    model: ImageModel, sample: ImageSet, followed: Tensor, method: str
) -> dict[str, float | None]:
    """Return how often a method shows the mark, in all N images and where the model follows it."""
    batches = torch.arange(len(sample)).split(CHUNK)
    counts = [pixels_shown(model, sample.subset(batch), method) for batch in batches]
    evidence, marked = torch.cat(counts, dim=1)
    is_shown = marked * 2 > MARK**2  # MARK is the side of a mark in pixels
    return {
        "evidence": round(float(evidence.float().mean()) / sample.images[0, 0].numel(), 4),
        "touched": fraction(marked > 0),
        "shown": fraction(is_shown),
        "shown_where_followed": fraction(is_shown[followed]),
    }


def fraction(values: Tensor) -> float | None:
    """Return the fraction of True values (N,), or None if there are none."""
    return round(float(values.float().mean()), 4) if len(values) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument(
        "--images", type=int, default=500, help="maximum number of explained images per model"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/planted.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {}
    data = f"planted-{SOURCE}"
    test = load_images(data, "test")
    marks = planted_marks(test)
    for name, variants in VARIANTS.items():
        for number, (variant, changes) in enumerate(variants.items()):
            shared = [f"epochs={EPOCHS.get(name, 12)}", f"data.name={data}", *UNFLIPPED]
            recipe = load_recipe(name, [*shared, *changes])
            model = load_or_train(recipe, options.runs / f"{data}-{name}-{number}")
            row = {"epochs": recipe.training.epochs} | figures(model, test, marks, options.images)
            result[f"{name}, {variant}" if variant else name] = row
            print(name, variant, json.dumps(row), flush=True)
    options.out.parent.mkdir(exist_ok=True)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
