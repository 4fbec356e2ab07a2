"""Models before training: with initial weights, frozen parts and fitted whitening filters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch

from foveal import zoo
from foveal.backbones import Backbone, WhiteningConv
from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError, unknown_name
from foveal.images.values import as_floats
from foveal.models import FocusNet, ImageModel, build_model
from foveal.models.abilities import Ability
from foveal.models.backbone_classifier import BackboneClassifier
from foveal.models.crop_features import crop_parts
from foveal.models.weights import Weights
from foveal.training.linear import fit_linear, labelled_vectors
from foveal.training.objectives.crops.selection import learn_selection
from foveal.training.pretrained import weights_file
from foveal.training.settings import Recipe

_WHITENING_IMAGES = 5_000  # whitening filters are fitted to at least as many images, if available


def initial_model(
    recipe: Recipe, settings: Mapping[str, object], images: ImageSet[Any] | None = None
) -> ImageModel:
    """Return the model of a recipe before training.

    Random weights depend only on the recipe's seed; the seed of torch's global generator is set.

    Args:
        recipe: the recipe.
        settings: complete settings of the model.
        images: images to which a whitening first layer is fitted, if the model has one; without
            them, the weights of that layer are random.

    Raises:
        UserError: weights do not fit, or the part to start from or to freeze does not exist.
    """
    torch.manual_seed(recipe.training.seed)
    model = build_model(settings)
    if images is not None and Ability.IN_PART not in model.abilities:
        _whiten(model, images)
    path = weights_file(recipe.model)
    if path is not None:
        _fill_backbone(model, path)
    if recipe.training.start:
        _start_from(model, recipe.training.start, recipe.training.start_part)
    _freeze(model, recipe)
    return model


def _fill_backbone(model: ImageModel, path: Path) -> None:
    """Copy weights from a file into a model's backbone.

    If the model reads crops, its detector has a backbone too, with fewer stages; it gets the same
    weights.
    """
    Weights(path).fill(backbone_of(model))
    if Ability.CROPS in model.abilities:
        detector, head = crop_parts(cast(FocusNet, model))
        source, target = head.backbone.state_dict(), detector.backbone.state_dict()
        detector.backbone.load_state_dict({name: source[name] for name in target})


def _start_from(model: ImageModel, start: str, part: str) -> None:
    """Copy the weights of a trained model into another one.

    Args:
        model: the model that gets the weights.
        start: zoo name or run folder of the trained model.
        part: the only part whose weights are copied; if empty, those of all parts that both models
            have.

    Raises:
        UserError: the models have no such part in common, or its weights differ in shape.
    """
    source = zoo.load(start).state_dict()
    target = model.state_dict()
    parts = {key.split(".")[0] for key in target} & {key.split(".")[0] for key in source}
    if part:
        if part not in parts:
            raise unknown_name("part to start from", part, parts)
        parts = {part}
    shared = {key: value for key, value in source.items() if key.split(".")[0] in parts}
    expected = {key: value.shape for key, value in target.items() if key.split(".")[0] in parts}
    if not shared or {key: value.shape for key, value in shared.items()} != expected:
        raise UserError(
            f"{start} has no weights that fit this model: parts of the same name "
            f"({', '.join(sorted(parts)) or 'none'}) must have the same settings."
        )
    model.load_state_dict(shared, strict=False)


def _freeze(model: ImageModel, recipe: Recipe) -> None:
    """Freeze parts of a model, as the recipe requires.

    Raises:
        UserError: a part does not exist, or the recipe would change it by recalibration.
    """
    if recipe.training.freeze:
        if recipe.training.recalibrate:
            raise UserError(
                "training.recalibrate would change the frozen part: set it to 0, or remove "
                "training.freeze."
            )
        part = getattr(model, recipe.training.freeze, None)
        if not isinstance(part, torch.nn.Module):
            names = [name for name, _ in model.named_children()]
            raise unknown_name("part to freeze", recipe.training.freeze, names)
        part.requires_grad_(False).eval()
    if recipe.training.freeze_depth:
        if recipe.training.recalibrate:
            raise UserError(
                "training.recalibrate would change the frozen depths: set it or "
                "training.freeze_depth to 0."
            )
        backbone_of(model).freeze(recipe.training.freeze_depth)
        if Ability.CROPS in model.abilities and recipe.training.cache:
            thumbnail_backbone = crop_parts(cast(FocusNet, model))[0].backbone
            thumbnail_backbone.freeze(len(thumbnail_backbone.widths))
    if recipe.training.fixed_norm:
        for layer in backbone_of(model).modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()


def backbone_of(model: ImageModel) -> Backbone:
    """Return the backbone of a model.

    Raises:
        UserError: the model has no backbone.
    """
    if Ability.BACKBONE not in model.abilities:
        raise UserError(
            "Expected a model with a backbone, such as 'attention' or 'plain', for its weights or "
            f"training.freeze_depth, but got {model.name!r}."
        )
    return cast(BackboneClassifier, model).backbone


def start_on_features(
    model: Any,
    recipe: Recipe,
    sets: Mapping[str, ImageSet[Any]],
    notify: Callable[[str], None] | None = None,
) -> None:
    """Set the weights that follow a frozen backbone before training, in place, from its features.

    If the model reads crops, its detector is trained to select them. Otherwise, if the recipe has
    `training.linear_start`, the classifier becomes a linear layer that is fitted to the features.
    If neither applies, the model is unchanged.

    Args:
        model: a model with a frozen backbone.
        recipe: the recipe.
        sets: image sets of features, as `train` and `val`.
        notify: called with a line before a step that takes minutes.

    Raises:
        UserError: the classifier cannot start as a linear layer, or the detector cannot learn to
            select crops.
    """
    if Ability.CROPS in model.abilities:
        if notify is not None:
            notify(f"Learning to select crops ({recipe.crops.select}) on frozen features")
        learn_selection(model, recipe, sets["train"])
    elif recipe.training.linear_start:
        train, val = (labelled_vectors(sets[split]) for split in ("train", "val"))
        linear = fit_linear(train, val, model.num_classes, recipe.training.balance)
        model.start_linear(*linear.fold_scaling())


def _whiten(model: ImageModel, images: ImageSet) -> None:
    """Fit the filters of a whitening first layer to images, in place, if the model has one."""
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            step = max(1, len(images) // _WHITENING_IMAGES)
            sample = as_floats(images.images[::step])
            layer.fit(model.normalised(sample))
