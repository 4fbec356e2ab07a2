"""Optimizers and learning-rate schedules of a recipe."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, SequentialLR

from foveal.models.image_model import ImageModel
from foveal.training.settings import Recipe, Training


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> LRScheduler | None:
    """Return the learning-rate schedule of a recipe; None for a constant rate.

    The rate rises to its maximum and falls again in one cycle (Smith & Topin 2018). With
    `honesty.settle`, the detector is frozen in the final fraction of training, which has a second
    cycle.

    Args:
        optimizer: an optimizer whose rates are the maxima.
        recipe: settings of the training run.
        steps: optimizer steps in all epochs.
    """
    training = recipe.training
    settle = recipe.honesty.settle
    if training.schedule == "constant":
        return None
    # Each `OneCycleLR` changes the rates of the optimizer, so the maxima are read first.
    rates = [group["lr"] for group in optimizer.param_groups]
    # Lightning advances a schedule after the last step too, so it has one rate more than steps.
    if not settle:
        return _cycle(optimizer, rates, steps + 1, training)
    first_steps = math.ceil(steps * (1 - settle))
    cycles: list[LRScheduler] = [
        _cycle(optimizer, rates, length, training)
        for length in (first_steps, steps - first_steps + 1)
    ]
    return SequentialLR(optimizer, cycles, [first_steps])


def _cycle(
    optimizer: torch.optim.Optimizer, rates: list[float], steps: int, training: Training
) -> OneCycleLR:
    """Return a schedule that rises to the maximum rates and falls again within some steps.

    Args:
        optimizer: the optimizer whose rates the schedule sets.
        rates: maximum rate of each parameter group.
        steps: number of steps.
        training: settings of the training run.
    """
    warmup = training.warmup
    if round(warmup * steps, 6) == 1:  # torch would divide by warmup * steps - 1
        warmup = 1.5 / steps
    return OneCycleLR(
        optimizer,
        rates,
        total_steps=steps,
        pct_start=warmup,
        cycle_momentum=training.optimizer == "adamw",  # the momentum of SGD stays constant
    )


def make_optimizer(model: ImageModel, training: Training) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe for the parameters of a model that are trained.

    Weight decay applies only to parameters of two dimensions or more.
    """
    groups = _groups(model, training)
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0
        )
    if training.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=training.lr)
    return torch.optim.AdamW(groups, lr=training.lr)


def _groups(model: ImageModel, training: Training) -> list[dict[str, object]]:
    """Return the parameter groups of an optimizer.

    The first holds the parameters that decay, the second those that do not. If `bias_lr` is not 1,
    a third holds the biases of batch normalisation, which have their own learning rate.
    """
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    fast_bias_ids = {id(layer.bias) for layer in norms} if training.bias_lr != 1 else set()
    parameters = [p for p in model.parameters() if p.requires_grad]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in vectors if id(p) not in fast_bias_ids], "weight_decay": 0.0},
    ]
    if fast_bias_ids:
        rate = training.lr * training.bias_lr
        biases = [p for p in vectors if id(p) in fast_bias_ids]
        groups.append({"params": biases, "weight_decay": 0.0, "lr": rate})
    return groups
