"""Comparison of crops with the whole image at equal cost, by folds of the training images."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from foveal.datasets import ImageSet, load_images, read_groups
from foveal.datasets.splits import folds, stratified
from foveal.foundation.memory import keep_freed_memory
from foveal.images.sizing import STEP, ShortSide
from foveal.metrics.efficiency import macs
from foveal.metrics.interval import Interval, bootstrap
from foveal.models import ImageModel
from foveal.training.augment import Augment
from foveal.training.feature_files import with_features
from foveal.training.features import predict_features
from foveal.training.initial_model import initial_model, start_on_features
from foveal.training.sets import model_settings, train_and_val
from foveal.training.settings import Recipe

FOLDS = 3
MAX_IMAGES = 600  # maximum number of images in a comparison
MIN_PER_CLASS = 8  # minimum number of images per class for a comparison


@dataclass(frozen=True)
class Comparison:
    """Accuracy of two recipes on held-out images, with frozen backbones.

    Attributes:
        focus: accuracy of the focus model; its mean over classes if the recipe balances classes.
        whole: the same for the model that reads the whole image.
        gain: their paired difference.
        side: short side in pixels at which the whole image costs no less than the focus model.
        macs: multiply-adds per image, of the focus model and of the whole image.
        images: number of images.
    """

    focus: float
    whole: float
    gain: Interval
    side: int
    macs: tuple[int, int]
    images: int

    @property
    def no_worse(self) -> bool:
        """Whether the focus model is at least as accurate."""
        return self.gain.value >= 0

    def lines(self) -> tuple[str, str]:
        """Return the comparison as two lines of text."""
        value, low, high = (100 * number for number in self.gain)
        return (
            f"compared by {FOLDS} folds of {self.images} training images, with the backbone frozen "
            f"and the whole image at {self.side} pixels:",
            f"  crops {self.focus:.1%} at {self.macs[0] / 1e6:,.0f} million multiply-adds, the "
            f"whole image {self.whole:.1%} at {self.macs[1] / 1e6:,.0f} million; difference "
            f"{value:+.1f} points (95% CI: {low:+.1f} to {high:+.1f})",
        )


@dataclass(frozen=True)
class _Sample:
    """Training images of a comparison, by path because their order depends on their size.

    Attributes:
        paths: path of each image.
        labels: (N,) class indices.
        groups: name of each image's group, or empty.
        fold: (N,) fold of each image.
    """

    paths: list[str]
    labels: Tensor
    groups: list[str]
    fold: Tensor


def compare_with_whole(
    focus: Recipe,
    whole: Recipe,
    data: str,
    size: tuple[int, int],
    data_dir: str | Path | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Comparison | None:
    """Compare a focus model with the whole image at equal multiply-adds, by cross-validation.

    Only the parts after the frozen backbones are trained, which takes a minute or two.

    Args:
        focus: a recipe for crops.
        whole: a recipe for the whole image; its short side is set by the cost of `focus`.
        data: a folder of class folders, or the name of a dataset of photographs.
        size: typical height and width of the images in pixels.
        data_dir: folder of named datasets.
        notify: called with a line if the comparison is not possible.

    Returns:
        The comparison; None if a class has too few images.
    """
    keep_freed_memory()
    images = _read(focus, data, data_dir)
    if int(images.labels.bincount(minlength=len(images.classes)).min()) < MIN_PER_CLASS:
        notify(f"  not compared with crops: that needs {MIN_PER_CLASS} training images per class")
        return None
    sample = _sample(images, focus.training.seed)
    cost = macs(_model(focus, images), _input_size(focus, size))
    side, whole_cost = _whole_side(whole, images, size, cost)
    whole = replace(whole, data=replace(whole.data, short_side=side))
    focus_hits = _hits(focus, images, sample)
    whole_hits = _hits(whole, _read(whole, data, data_dir), sample)
    balanced = focus.training.balance > 0
    mean = partial(bootstrap, labels=sample.labels, groups=sample.groups, balanced=balanced)
    gain, costs = mean(focus_hits - whole_hits), (cost, whole_cost)
    focus_mean, whole_mean = mean(focus_hits).value, mean(whole_hits).value
    return Comparison(focus_mean, whole_mean, gain, side, costs, len(focus_hits))


def _sample(images: ImageSet[Any], seed: int) -> _Sample:
    """Return at most `MAX_IMAGES` images, stratified by class, in folds."""
    order = sorted(range(len(images)), key=lambda index: images.paths[index])
    labels = images.labels[torch.tensor(order)]
    chosen = stratified(labels, min(MAX_IMAGES, len(order)), seed).tolist()
    paths = [images.paths[order[index]] for index in chosen]
    groups = [images.groups[order[index]] for index in chosen] if images.groups else []
    labels = labels[torch.tensor(chosen)]
    return _Sample(paths, labels, groups, folds(labels, FOLDS, groups, seed=seed))


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
    return initial_model(recipe, model_settings(recipe, images))


def _input_size(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
    return ShortSide(cast(int, recipe.data.short_side)).of(size)


def _whole_side(
    whole: Recipe, images: ImageSet[Any], size: tuple[int, int], cost: int
) -> tuple[int, int]:
    """Return the minimum short side at which the whole image costs no less, and its cost."""
    model, side = _model(whole, images), STEP
    while True:
        whole_cost = macs(model, ShortSide(side).of(size))
        if whole_cost >= cost:
            return side, whole_cost
        side += STEP


def _hits(recipe: Recipe, images: ImageSet[Any], sample: _Sample) -> Tensor:
    """Return 1 for each correctly predicted image of the sample, else 0 (N,)."""
    return (_predictions(recipe, images, sample) == sample.labels).double()


def _predictions(recipe: Recipe, images: ImageSet[Any], sample: _Sample) -> Tensor:
    """Return predictions (N,) for the sample, for each fold by a model trained on the others."""
    paths = sample.paths
    chosen = set(paths)
    indices = [index for index, path in enumerate(images.paths) if path in chosen]
    images = images.subset(torch.tensor(indices))
    recipe = replace(recipe, augment=Augment())  # features of the unchanged images
    with tempfile.TemporaryDirectory() as folder:
        model = _model(recipe, images)
        features = with_features(model, recipe, {"train": images}, Path(folder))["train"]
        row_of = {path: index for index, path in enumerate(features.paths)}
        rows = torch.tensor([row_of[path] for path in paths])
        predictions = torch.full((len(paths),), -1)
        for number in range(FOLDS):
            is_test = sample.fold == number
            model = _model(recipe, images)
            # A tenth of the other folds chooses the linear layer's weight decay.
            parts = train_and_val(features, rows[~is_test].sort().values)
            start_on_features(model, recipe, parts)
            test_rows, order = rows[is_test].sort()
            logits = predict_features(model, features.subset(test_rows).images)
            predictions[is_test.nonzero()[order, 0]] = logits.argmax(dim=1)
    return predictions
