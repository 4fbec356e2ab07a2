"""Models before training: transferred weights, frozen parts and whitening filters."""

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
from foveal.models.crop_features import parts_of
from foveal.models.weights import Weights
from foveal.training.linear import fit_linear, labelled_vectors
from foveal.training.objectives.crops.selection import learn_selection
from foveal.training.pretrained import weights_file
from foveal.training.settings import Recipe


def initial_model(
    recipe: Recipe, settings: Mapping[str, object], images: ImageSet[Any] | None = None
) -> ImageModel:
    """Return a recipe's model before training, built from its seed, with initial weights.

    Args:
        recipe: the recipe.
        settings: complete settings of its model.
        images: images for a whitening first layer; without them, its weights are random.

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
    """Copy weights from a file into a model's backbone, and into the detector's of crops."""
    Weights(path).fill(backbone_of(model))
    if Ability.CROPS in model.abilities:
        detector, head = parts_of(cast(FocusNet, model))
        source, target = head.backbone.state_dict(), detector.backbone.state_dict()
        detector.backbone.load_state_dict({name: source[name] for name in target})


def _start_from(model: ImageModel, start: str, part: str) -> None:
    """Copy the weights of a trained model, or of one of its parts."""
    source, target = zoo.load(start).state_dict(), model.state_dict()
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
            thumbnail_backbone = parts_of(cast(FocusNet, model))[0].backbone
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
    """Initialise a model on features, as the recipe requires.

    In models of crops, the detector learns to select them; in other models, the classifier starts
    as a linear layer, with `training.linear_start`.

    Args:
        model: a model with a frozen backbone.
        recipe: the recipe.
        sets: features, as `train` and `val`.
        notify: called with a line before a step that takes minutes.

    Raises:
        UserError: the classifier cannot start as a linear layer; see also `learn_selection`.
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
    """Fit the filters of a whitening first layer, if the model has one."""
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            sample = as_floats(images.images[:: max(1, len(images) // 5_000)])
            layer.fit(model.normalised(sample))
