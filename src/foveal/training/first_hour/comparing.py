"""Comparison of focus with the whole image at equal cost, by folds of the training images."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from foveal.datasets import ImageSet, load_images, read_groups
from foveal.datasets.splits import folds, share_of, stratified
from foveal.foundation.memory import keep_freed_memory
from foveal.images.sizing import STEP, ShortSide
from foveal.metrics.efficiency import macs
from foveal.metrics.interval import Interval, bootstrap
from foveal.models import ImageModel, build_model
from foveal.training.augment import Augment
from foveal.training.feature_files import with_features
from foveal.training.features import predicted
from foveal.training.first_weights import start_on_features, take_first_weights
from foveal.training.sets import model_settings
from foveal.training.settings import Recipe

FOLDS = 3
IMAGES = 600  # that are compared on, at most
LEAST = 8  # images of the rarest class, without which nothing is compared


@dataclass(frozen=True)
class Compared:
    """What two recipes answer to images that they have not seen, with frozen backbones.

    Attributes:
        focus: accuracy of the focus model; the mean over the classes where rare ones weigh more.
        whole: of the model of the whole image.
        gain: their paired difference.
        side: short side in pixels at which the whole image costs what the focus model does.
        macs: multiply-adds of an image, of the focus model and of the whole image.
        images: how many were compared.
    """

    focus: float
    whole: float
    gain: Interval
    side: int
    macs: tuple[int, int]
    images: int

    @property
    def no_worse(self) -> bool:
        """Whether the focus model is no worse."""
        return self.gain.value >= 0

    def line(self) -> str:
        """Return what was compared, as a line of text."""
        value, low, high = (100 * number for number in self.gain)
        return (
            f"compared by {FOLDS} folds of {self.images} training images, backbone frozen: crops "
            f"{self.focus:.1%} at {self.macs[0] / 1e6:,.0f} million multiply-adds, the whole image "
            f"of {self.side} pixels {self.whole:.1%} at {self.macs[1] / 1e6:,.0f}; difference "
            f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
        )


def compare_with_whole(
    focus: Recipe,
    whole: Recipe,
    data: str,
    size: tuple[int, int],
    data_dir: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Compared | None:
    """Return how a focus model does beside the whole image at equal multiply-adds.

    Only what follows the frozen backbones is trained, so that this takes a minute or two.

    Args:
        focus: a recipe of crops.
        whole: of a model of the whole image, whose short side is set by what `focus` costs.
        data: a folder of class folders, or the name of a data set of photographs.
        size: height and width in pixels that are usual of the images.
        data_dir: where named datasets lie.
        say: called with a line where nothing can be compared.

    Returns:
        The figures; None where a class has too few images.
    """
    keep_freed_memory()
    images = _read(focus, data, data_dir)
    if int(images.labels.bincount(minlength=len(images.classes)).min()) < LEAST:
        say(f"  not compared with crops: that takes {LEAST} training images of each class")
        return None
    # One order for both: photographs lie in another at another size.
    order = sorted(range(len(images)), key=lambda index: images.paths[index])
    labels = images.labels[torch.tensor(order)]
    some = stratified(labels, min(IMAGES, len(order)), focus.training.seed).tolist()
    paths = [images.paths[order[index]] for index in some]
    groups = [images.groups[order[index]] for index in some] if images.groups else []
    labels = labels[torch.tensor(some)]
    fold = folds(labels, FOLDS, groups, seed=focus.training.seed)
    cost = macs(_model(focus, images), _sized(focus, size))
    side, priced = _whole_side(whole, images, size, cost)
    whole = replace(whole, data=replace(whole.data, short_side=side))
    found = []
    for recipe in (focus, whole):
        read = images if recipe is focus else _read(whole, data, data_dir)
        found.append(_answers(recipe, read, paths, fold))
    right = [(answers == labels).double() for answers in found]
    balanced = focus.training.balance > 0
    figures = [bootstrap(one, labels, groups=groups, balanced=balanced) for one in right]
    gain = bootstrap(right[0] - right[1], labels, groups=groups, balanced=balanced)
    return Compared(figures[0].value, figures[1].value, gain, side, (cost, priced), len(paths))


def _read(recipe: Recipe, data: str, data_dir: str | Path | None) -> ImageSet[Any]:
    return load_images(
        data,
        "train",
        size=recipe.data.sizing,
        channels=recipe.data.channels,
        data_dir=data_dir,
        groups=read_groups(recipe.data.groups),
    )


def _model(recipe: Recipe, images: ImageSet[Any]) -> ImageModel:
    torch.manual_seed(recipe.training.seed)
    model = build_model(model_settings(recipe, images))
    take_first_weights(model, recipe)
    return model


def _sized(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
    return ShortSide(cast(int, recipe.data.short_side)).of(size)


def _whole_side(
    whole: Recipe, images: ImageSet[Any], size: tuple[int, int], cost: int
) -> tuple[int, int]:
    """Return the least short side at which the whole image costs no less, and what it costs."""
    model, side = _model(whole, images), STEP
    while True:
        priced = macs(model, ShortSide(side).of(size))
        if priced >= cost:
            return side, priced
        side += STEP


def _answers(recipe: Recipe, images: ImageSet[Any], paths: list[str], fold: Tensor) -> Tensor:
    """Return what a recipe answers to the images of these paths (N,), each fold by the others."""
    chosen = set(paths)
    kept = [index for index, path in enumerate(images.paths) if path in chosen]
    images = images.subset(torch.tensor(kept))
    recipe = replace(recipe, augment=Augment())  # features of images as they are
    with tempfile.TemporaryDirectory() as folder:
        model = _model(recipe, images)
        features = with_features(model, recipe, {"train": images}, Path(folder))["train"]
        place = {path: index for index, path in enumerate(features.paths)}
        rows = torch.tensor([place[path] for path in paths])
        answers = torch.full((len(paths),), -1)
        for number in range(FOLDS):
            tested = fold == number
            rest = features.subset(rows[~tested].sort().values)
            model = _model(recipe, images)
            start_on_features(model, recipe, _divided(rest))
            own, back = rows[tested].sort()
            predictions = predicted(model, features.subset(own).images).argmax(dim=1)
            answers[tested.nonzero()[back, 0]] = predictions
    return answers


def _divided(images: ImageSet[Any]) -> dict[str, ImageSet[Any]]:
    """Return images by `train` and `val`: a tenth chooses the linear layer's weight decay."""
    found = {}
    for split in ("train", "val"):
        own = share_of(images.labels, split, own_val=False, own_test=True, groups=images.groups)
        found[split] = images.subset(own)
    return found
