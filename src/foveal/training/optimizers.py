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

    One cycle (Smith & Topin 2018). With `honesty.settle`, a second cycle begins when the detector
    is frozen.
    """
    training, settle = recipe.training, recipe.honesty.settle
    if training.schedule == "constant":
        return None
    rates = [group["lr"] for group in optimizer.param_groups]  # OneCycleLR changes them
    if not settle:
        return _cycle(optimizer, rates, steps + 1, training)
    first = math.ceil(steps * (1 - settle))
    cycles: list[LRScheduler] = [
        _cycle(optimizer, rates, length, training) for length in (first, steps - first + 1)
    ]
    return SequentialLR(optimizer, cycles, [first])


def _cycle(
    optimizer: torch.optim.Optimizer, rates: list[float], steps: int, training: Training
) -> OneCycleLR:
    """Return a schedule that rises to the rates and falls again within a number of steps."""
    warmup = training.warmup
    if round(warmup * steps, 6) == 1:  # torch would divide by the length of an empty phase
        warmup = 1.5 / steps
    return OneCycleLR(
        optimizer,
        rates,
        total_steps=steps,
        pct_start=warmup,
        cycle_momentum=training.optimizer == "adamw",
    )


def make_optimizer(model: ImageModel, training: Training) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; only weights of two dimensions or more decay."""
    groups = _groups(model, training)
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0
        )
    if training.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=training.lr)
    return torch.optim.AdamW(groups, lr=training.lr)


def _groups(model: ImageModel, training: Training) -> list[dict[str, object]]:
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    fast_biases = {id(layer.bias) for layer in norms} if training.bias_lr != 1 else set()
    parameters = [p for p in model.parameters() if p.requires_grad]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in vectors if id(p) not in fast_biases], "weight_decay": 0.0},
    ]
    if fast_biases:
        rate = training.lr * training.bias_lr
        biases = [p for p in vectors if id(p) in fast_biases]
        groups.append({"params": biases, "weight_decay": 0.0, "lr": rate})
    return groups
