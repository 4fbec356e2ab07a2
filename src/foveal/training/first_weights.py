"""Initial state of a training run: transferred weights, frozen parts and whitening filters."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch

from foveal import zoo
from foveal.backbones import Backbone, WhiteningConv
from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError, unknown_name
from foveal.images.values import as_floats
from foveal.models import FocusNet, ImageModel
from foveal.models.abilities import Ability
from foveal.models.backbone_classifier import BackboneClassifier
from foveal.models.crop_features import parts_of
from foveal.training.linear import fit_linear, labelled
from foveal.training.objectives.crops.selection import learn_selection
from foveal.training.pretrained import take_file
from foveal.training.settings import Recipe
from foveal.training.weights_file import weights_file


def take_first_weights(model: ImageModel, recipe: Recipe) -> None:
    """Load the recipe's initial weights, and freeze the parts that it does not train.

    Raises:
        UserError: the weights do not fit, or the part to start from or to freeze does not exist.
    """
    path = weights_file(recipe.model)
    if path is not None:
        take_file(backbone_of(model), path)
        if Ability.CROPS in model.abilities:
            detector, head = parts_of(cast(FocusNet, model))
            theirs = head.backbone.state_dict()
            own = detector.backbone.state_dict()
            detector.backbone.load_state_dict({name: theirs[name] for name in own})
    if recipe.training.start:
        theirs = zoo.load(recipe.training.start).state_dict()
        ours = model.state_dict()
        parts = {key.split(".")[0] for key in ours} & {key.split(".")[0] for key in theirs}
        if recipe.training.start_part:
            if recipe.training.start_part not in parts:
                raise unknown_name("part to start from", recipe.training.start_part, parts)
            parts = {recipe.training.start_part}
        shared = {key: value for key, value in theirs.items() if key.split(".")[0] in parts}
        expected = {key: value.shape for key, value in ours.items() if key.split(".")[0] in parts}
        if not shared or {key: value.shape for key, value in shared.items()} != expected:
            raise UserError(
                f"{recipe.training.start} has no weights that fit this model: parts of the same "
                f"name ({', '.join(sorted(parts)) or 'none'}) must have the same settings."
            )
        model.load_state_dict(shared, strict=False)
    _freeze(model, recipe)


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
            own = parts_of(cast(FocusNet, model))[0].backbone
            own.freeze(len(own.widths))
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
    say: Callable[[str], None] | None = None,
) -> None:
    """Initialise a model on features, as the recipe requires.

    The detector of crops learns to select them; the classifier of other models starts as a linear
    layer, with `training.linear_start`.

    Args:
        model: a model with a frozen backbone.
        recipe: the recipe.
        sets: features, as `train` and `val`.
        say: called with a line before a step that takes minutes.

    Raises:
        UserError: the classifier cannot start as a linear layer, or as `learn_selection`.
    """
    if Ability.CROPS in model.abilities:
        if say is not None:
            say(f"Learning to select crops ({recipe.crops.select}) on frozen features")
        learn_selection(model, recipe, sets["train"])
    elif recipe.training.linear_start:
        train, val = (labelled(sets[split]) for split in ("train", "val"))
        linear = fit_linear(train, val, model.num_classes, recipe.training.balance)
        model.start_linear(*linear.folded())


def whiten(model: ImageModel, images: ImageSet) -> None:
    """Fit the filters of a whitening first layer, if the model has one."""
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            some = as_floats(images.images[:: max(1, len(images) // 5_000)])
            layer.fit(model.normalised(some))
