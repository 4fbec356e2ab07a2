"""Image sets of a training run, and the settings of its model that follow from the images."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from foveal.backbones import BACKBONES
from foveal.datasets import ImageSet, load_images, load_large, read_groups, with_masks
from foveal.datasets.sampling import sample_px
from foveal.datasets.splits import split_indices
from foveal.foundation.errors import UserError
from foveal.images import LargeImages
from foveal.images.photos import Photos
from foveal.models import MODELS, PARTS, abilities_of
from foveal.models.abilities import Ability
from foveal.training.pretrained import without_weights_file
from foveal.training.settings import Recipe

Sets = dict[str, ImageSet[Any]]


def load_sets(recipe: Recipe, source: str, data_dir: str | Path | None) -> Sets:
    """Return the images for training and validation, as `train` and `val`.

    If the model reads large images and the recipe has `large.first`, there is a third set, `first`:
    smaller images, with which training begins.

    Args:
        recipe: the recipe.
        source: name of a dataset, or a folder of images.
        data_dir: folder of named datasets.

    Raises:
        UserError: the data cannot be read, or large images do not support the recipe's settings.
    """
    if Ability.IN_PART in abilities_of(recipe.model):
        return _large_sets(recipe, source, data_dir)
    data = recipe.data
    groups = read_groups(data.groups)
    sets = {
        split: load_images(
            source,
            split,
            size=data.sizing,
            channels=data.channels,
            data_dir=data_dir,
            groups=groups,
        )
        for split in ("train", "val")
    }
    # The masks of a dataset are only for evaluation; `data.masks` adds those for training.
    sets = {split: replace(images, masks=None) for split, images in sets.items()}
    if data.limit:
        sets["train"] = sets["train"].few(data.limit, data.draw)
    if data.masks:
        sets["train"] = with_masks(sets["train"], source, data.masks)
    return sets


def _large_sets(recipe: Recipe, source: str, data_dir: str | Path | None) -> Sets:
    """Return sets of large images, which stay in their files; see `load_sets`.

    Raises:
        UserError: the data cannot be read, or large images do not support the recipe's settings.
    """
    data = recipe.data
    first_source = recipe.large.first
    if data.sizing or data.channels or data.masks or recipe.training.recalibrate:
        raise UserError(
            "Large images are read in parts and not resized: remove data.size, data.short_side, "
            "data.channels, data.masks and training.recalibrate."
        )
    limit = data.limit
    sets = {
        "train": load_large(source, "train", limit=limit, data_dir=data_dir),
        "val": load_large(source, "val", data_dir=data_dir),
    }
    if first_source:
        sets["first"] = load_large(first_source, "train", limit=limit, data_dir=data_dir)
    return sets


def train_and_val(images: ImageSet[Any], indices: Tensor) -> Sets:
    """Divide the images at `indices` (M,) into `train` and `val`.

    About a tenth of each class is in `val`. Images of one group are in the same set.
    """
    labels = images.labels[indices]
    groups = [images.groups[i] for i in indices.tolist()] if images.groups else []
    sets = {}
    for split in ("train", "val"):
        selected = split_indices(labels, split, own_val=False, own_test=True, groups=groups)
        sets[split] = images.subset(indices[selected])
    return sets


def model_settings(
    recipe: Recipe, images: ImageSet[Tensor | Photos | LargeImages]
) -> dict[str, object]:
    """Return the recipe's model settings, completed with those that follow from the images.

    These are the inputs (size, mean and standard deviation of the pixels, classes), and arguments
    of the model and its parts, such as `in_channels`, that the recipe does not set.
    """
    pixels, size = sample_px(images.images)
    channels = pixels.shape[1]
    mean, std = _rounded(pixels.mean(dim=0)), _rounded(pixels.std(dim=0).clamp_min(1e-3))
    if (required := _required_normalisation(recipe)) is not None:
        mean, std = ([value] * channels for value in required)
    short_side = recipe.data.short_side
    shape = {"size": size} if short_side is None else {"short_side": short_side}
    without_classes = Ability.REBUILT in abilities_of(recipe.model)
    settings = {
        "inputs": {
            **shape,
            "mean": mean,
            "std": std,
            "classes": [] if without_classes else list(images.classes),
        },
        **without_weights_file(recipe.model),
    }
    # Inputs and outputs of the parts follow from the images, unless the recipe sets them.
    defaults: dict[str, object] = {"in_channels": channels, "size": size}
    defaults |= {k: v for k, v in settings.items() if k == "patch_size"}
    if not without_classes:
        defaults["num_classes"] = len(images.classes)
    for part, registry in PARTS.items():  # the detector first: it sets `keypoints` for the others
        part_settings = settings.get(part)
        if isinstance(part_settings, Mapping):
            settings[part] = complete = _complete(part_settings, registry, defaults)
            defaults |= {k: v for k, v in complete.items() if k == "keypoints"}
    model_keys = ("in_channels", "num_classes")
    model_defaults = {key: value for key, value in defaults.items() if key in model_keys}
    return _complete(settings, MODELS, model_defaults)


def _required_normalisation(recipe: Recipe) -> tuple[float, float] | None:
    """Return the mean and standard deviation of pixels that the backbone requires, or None."""
    backbone = recipe.model.get("backbone")
    if not isinstance(backbone, Mapping):
        return None
    backbone_class = BACKBONES.get(backbone.get("name", ""))
    return None if backbone_class is None else backbone_class.normalisation


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]


def _complete(
    settings: Mapping[str, object],
    registry: Mapping[str, Callable[..., object]],
    defaults: Mapping[str, object],
) -> dict[str, object]:
    """Return settings with defaults for the arguments that are missing.

    Args:
        settings: `name` of a class and some of its arguments.
        registry: classes by name.
        defaults: values by argument; those that the class does not accept are ignored.
    """
    name = settings.get("name")
    named_class = registry.get(name) if isinstance(name, str) else None
    accepted = {} if named_class is None else inspect.signature(named_class).parameters
    return {**{key: value for key, value in defaults.items() if key in accepted}, **settings}
