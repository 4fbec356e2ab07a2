"""What a training starts from: weights taken over, parts frozen, filters that whiten."""

import torch

from foveal import zoo
from foveal.backbones import WhiteningConv
from foveal.data import ImageSet
from foveal.errors import UserError, unknown_name
from foveal.models import ImageModel
from foveal.training.recipe import Recipe


def take_first_weights(model: ImageModel, recipe: Recipe) -> None:
    """Take over the recipe's first weights, and freeze what it does not train.

    Raises:
        UserError: the weights do not fit, or there is no such part to take or freeze.
    """
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
                f"{recipe.training.start} has no weights that fit this model: its parts named alike"
                f" ({', '.join(sorted(parts)) or 'none'}) must be built alike."
            )
        model.load_state_dict(shared, strict=False)
    if recipe.training.freeze:
        if recipe.training.recalibrate:
            raise UserError(
                "training.recalibrate would measure the frozen part anew: set it to 0, or freeze "
                "nothing."
            )
        part = getattr(model, recipe.training.freeze, None)
        if not isinstance(part, torch.nn.Module):
            names = [name for name, _ in model.named_children()]
            raise unknown_name("part to freeze", recipe.training.freeze, names)
        part.requires_grad_(False).eval()


def whiten(model: ImageModel, images: ImageSet) -> None:
    """Set the filters of a whitening first layer, if the model has one."""
    for layer in model.modules():
        if isinstance(layer, WhiteningConv):
            some = images.images[:: max(1, len(images) // 5_000)].float() / 255
            layer.fit((some - model.mean) / model.std)
