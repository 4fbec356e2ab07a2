"""Image sets for training, and the model settings that follow from them."""

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
from foveal.training.pretrained import without_file
from foveal.training.settings import Recipe

Sets = dict[str, ImageSet[Any]]


def load_sets(recipe: Recipe, source: str, data_dir: str | Path | None) -> Sets:
    """Return the images for training and validation, as `train` and `val`.

    For large images, there may also be `first`: smaller images for the first epochs.

    Raises:
        UserError: the data cannot be read, or large images do not support the recipe's settings.
    """
    if Ability.IN_PART in abilities_of(recipe.model):
        return _large_sets(recipe, source, data_dir)
    data, groups = recipe.data, read_groups(recipe.data.groups)
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
    # The masks of a dataset are for evaluation, not for training.
    sets = {split: replace(images, masks=None) for split, images in sets.items()}
    if data.limit:
        sets["train"] = sets["train"].few(data.limit, data.draw)
    if data.masks:
        sets["train"] = with_masks(sets["train"], source, data.masks)
    return sets


def _large_sets(recipe: Recipe, source: str, data_dir: str | Path | None) -> Sets:
    data, first = recipe.data, recipe.large.first
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
    if first:
        sets["first"] = load_large(first, "train", limit=limit, data_dir=data_dir)
    return sets


def train_and_val(images: ImageSet[Any], indices: Tensor) -> Sets:
    """Return the images at `indices` (M,): about a tenth of each class as `val`, others as `train`.

    Groups are not divided.
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
    """Return the recipe's model settings, completed from the images."""
    pixels, size = sample_px(images.images)
    channels = pixels.shape[1]
    mean, std = _rounded(pixels.mean(dim=0)), _rounded(pixels.std(dim=0).clamp_min(1e-3))
    if (fixed := _normalisation(recipe)) is not None:
        mean, std = ([value] * channels for value in fixed)
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
        **without_file(recipe.model),
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
    shared = ("in_channels", "num_classes")
    return _complete(settings, MODELS, {k: v for k, v in defaults.items() if k in shared})


def _normalisation(recipe: Recipe) -> tuple[float, float] | None:
    """Return the mean and standard deviation that the backbone requires, or None."""
    backbone = recipe.model.get("backbone")
    kind = BACKBONES.get(backbone.get("name", "")) if isinstance(backbone, Mapping) else None
    return None if kind is None else kind.normalisation


def _rounded(values: Tensor) -> list[float]:
    return [round(float(value), 4) for value in values]


def _complete(
    settings: Mapping[str, object],
    registry: Mapping[str, Callable[..., object]],
    defaults: Mapping[str, object],
) -> dict[str, object]:
    """Return settings, with defaults for missing arguments of the class that they name."""
    name = settings.get("name")
    kind = registry.get(name) if isinstance(name, str) else None
    accepted = {} if kind is None else inspect.signature(kind).parameters
    return {**{key: value for key, value in defaults.items() if key in accepted}, **settings}
