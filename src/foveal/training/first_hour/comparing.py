"""Comparison of a model that reads crops with one that reads whole images, at equal cost.

Both are compared in a cross-validation of the training images. A focus model is here the one that
reads crops, including one of the whole image at low resolution.
"""

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

FOLDS = 3  # number of folds of the cross-validation
MAX_IMAGES = 600  # maximum number of images in a comparison
MIN_PER_CLASS = 8  # minimum number of images per class for a comparison


@dataclass(frozen=True)
class Comparison:
    """Accuracy of two models with frozen backbones, each on images that it was not trained on.

    If the recipe balances classes, each accuracy is the mean per-class accuracy.

    Attributes:
        focus: accuracy of the focus model, as a fraction.
        whole: accuracy of the model that reads whole images, as a fraction.
        gain: paired difference of the accuracies, focus model minus whole image.
        side: short side in pixels to which whole images were resized: the minimum at which the
            model costs at least as much as the focus model.
        macs: multiply-adds per image of the focus model, and of the model that reads whole images.
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
        """Whether the focus model is at least as accurate as the other one."""
        return self.gain.value >= 0

    def lines(self) -> tuple[str, str]:
        """Return the comparison as two lines of text."""
        value, low, high = (100 * fraction for fraction in self.gain)
        focus_macs, whole_macs = self.macs
        return (
            f"compared by {FOLDS} folds of {self.images} training images, with the backbone frozen "
            f"and the whole image at {self.side} pixels:",
            f"  crops {self.focus:.1%} at {focus_macs / 1e6:,.0f} million multiply-adds, the "
            f"whole image {self.whole:.1%} at {whole_macs / 1e6:,.0f} million; difference "
            f"{value:+.1f} points (95% CI: {low:+.1f} to {high:+.1f})",
        )


@dataclass(frozen=True)
class _Sample:
    """The training images on which two models are compared.

    They are identified by path, because the order in which photographs are read depends on the
    sizes to which they are resized.

    Attributes:
        paths: path of each image.
        labels: (N,) class indices.
        groups: name of each image's group; empty if images have no groups.
        fold: (N,) index of the fold in which each image is tested, from 0.
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
    """Compare a model that reads crops with one that reads whole images, in a cross-validation.

    Whole images are resized so that both models need about the same number of multiply-adds. Only
    the parts after the frozen backbones are trained, which takes a minute or two.

    Args:
        focus: a recipe for a model that reads crops.
        whole: a recipe for a model that reads whole images; its `short_side` is replaced.
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
    sample = _draw_sample(images, focus.training.seed)
    focus_cost = macs(_new_model(focus, images), _input_size(focus, size))
    side, whole_cost = _whole_side(whole, images, size, focus_cost)
    whole = replace(whole, data=replace(whole.data, short_side=side))
    focus_hits = _hits(focus, images, sample)
    whole_hits = _hits(whole, _read(whole, data, data_dir), sample)
    balanced = focus.training.balance > 0
    return _compare_hits(focus_hits, whole_hits, sample, balanced, side, (focus_cost, whole_cost))


def _compare_hits(
    focus_hits: Tensor,
    whole_hits: Tensor,
    sample: _Sample,
    balanced: bool,
    side: int,
    costs: tuple[int, int],
) -> Comparison:
    """Return the comparison of two models, given the results of `_hits` (N,) for each of them.

    The values of `side` and `costs` are those of `Comparison.side` and `Comparison.macs`.
    """
    interval = partial(bootstrap, labels=sample.labels, groups=sample.groups, balanced=balanced)
    return Comparison(
        focus=interval(focus_hits).value,
        whole=interval(whole_hits).value,
        gain=interval(focus_hits - whole_hits),
        side=side,
        macs=costs,
        images=len(focus_hits),
    )


def _draw_sample(images: ImageSet[Any], seed: int) -> _Sample:
    """Draw at most `MAX_IMAGES` images, stratified by class, and assign them to folds."""
    # Ordered by path, so that the sample does not depend on the size to which images are resized.
    order = sorted(range(len(images)), key=lambda index: images.paths[index])
    labels = images.labels[torch.tensor(order)]
    chosen = stratified(labels, min(MAX_IMAGES, len(order)), seed).tolist()  # indices of `order`
    paths = [images.paths[order[index]] for index in chosen]
    groups = [images.groups[order[index]] for index in chosen] if images.groups else []
    labels = labels[torch.tensor(chosen)]
    return _Sample(paths, labels, groups, folds(labels, FOLDS, groups, seed=seed))


def _read(recipe: Recipe, data: str, data_dir: str | Path | None) -> ImageSet[Any]:
    """Return the training images, resized as the recipe requires."""
    return load_images(
        data,
        "train",
        size=recipe.data.sizing,
        channels=recipe.data.channels,
        data_dir=data_dir,
        groups=read_groups(recipe.data.groups),
    )


def _new_model(recipe: Recipe, images: ImageSet[Any]) -> ImageModel:
    """Return the model of a recipe before training."""
    return initial_model(recipe, model_settings(recipe, images))


def _input_size(recipe: Recipe, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width to which a recipe resizes an image of `size` (H, W)."""
    return ShortSide(cast(int, recipe.data.short_side)).of(size)


def _whole_side(
    whole: Recipe, images: ImageSet[Any], size: tuple[int, int], cost: int
) -> tuple[int, int]:
    """Return the minimum short side at which whole images cost at least `cost`, and their cost.

    Args:
        whole: a recipe for a model that reads whole images.
        images: training images.
        size: typical height and width of the images in pixels.
        cost: multiply-adds per image of the other model.
    """
    model = _new_model(whole, images)
    side = STEP
    while True:
        whole_cost = macs(model, ShortSide(side).of(size))
        if whole_cost >= cost:
            return side, whole_cost
        side += STEP


def _hits(recipe: Recipe, images: ImageSet[Any], sample: _Sample) -> Tensor:
    """Return (N,): 1 for each image of the sample that is predicted correctly, else 0."""
    return (_predictions(recipe, images, sample) == sample.labels).double()


def _predictions(recipe: Recipe, images: ImageSet[Any], sample: _Sample) -> Tensor:
    """Return predicted class indices (N,) for the sample.

    The images of each fold are classified by a model that was trained on the other folds.
    """
    paths = sample.paths
    path_set = set(paths)
    indices = [index for index, path in enumerate(images.paths) if path in path_set]
    images = images.subset(torch.tensor(indices))
    recipe = replace(recipe, augment=Augment())  # only features of the unchanged images
    with tempfile.TemporaryDirectory() as folder:
        model = _new_model(recipe, images)
        features = with_features(model, recipe, {"train": images}, Path(folder))["train"]
        index_by_path = {path: index for index, path in enumerate(features.paths)}
        indices_of_sample = torch.tensor([index_by_path[path] for path in paths])  # in `features`
        predictions = torch.full((len(paths),), -1)
        for fold in range(FOLDS):
            is_test = sample.fold == fold
            model = _new_model(recipe, images)
            # A tenth of the other folds is for validation: it selects the weight decay.
            sets = train_and_val(features, indices_of_sample[~is_test].sort().values)
            start_on_features(model, recipe, sets)
            test_indices, order = indices_of_sample[is_test].sort()  # a subset's must ascend
            logits = predict_features(model, features.subset(test_indices).images)
            predictions[is_test.nonzero()[order, 0]] = logits.argmax(dim=1)
    return predictions
