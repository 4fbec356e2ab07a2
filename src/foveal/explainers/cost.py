"""Cost of attributions in forward passes, measured by counting operations."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.backends import mha

from foveal.explainers.model_wrapper import logits_of, noise_image
from foveal.explainers.task import Attributor, Task

# The costs measured for each model, so that each is measured only once. The keys are weak
# references: when a model is deleted, its entry is removed.
_COSTS: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], float]] = WeakKeyDictionary()


def measure_cost(task: Task, method: str, attribute: Attributor) -> float:
    """Return the cost of prediction and attribution for one image, in forward passes.

    The cost is NaN if no operation of the prediction is counted.

    Args:
        task: a model and the shape of its images.
        method: name under which the cost is cached.
        attribute: the attributor that the method prepared for the task.
    """
    costs = _COSTS.setdefault(task.model, {})
    key = (method, task.shape, task.layer)
    if key not in costs:
        image = noise_image(task.model, task.shape)
        target = torch.zeros(1, dtype=torch.long, device=image.device)
        prediction_flops = _count_flops(lambda: logits_of(task.model, image))
        total_flops = prediction_flops + _count_flops(lambda: attribute(image, target))
        costs[key] = total_flops / prediction_flops if prediction_flops else float("nan")
    return costs[key]


def _count_flops(run: Callable[[], object]) -> int:
    """Return the floating-point operations of a function, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode  # slow: imports Triton

    # The counter does not support the fused attention that is used in evaluation mode.
    was_enabled = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            run()
    finally:
        mha.set_fastpath_enabled(was_enabled)
    return int(counter.get_total_flops())
