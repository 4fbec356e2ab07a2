"""Cost of attributions in forward passes, measured by counting operations."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.backends import mha

from foveal.explainers.model_wrapper import answer, noise
from foveal.explainers.task import Attributor, Task

# Each model is measured once; its entry is removed with the model.
_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], float]] = WeakKeyDictionary()


def measured(task: Task, method: str, attribute: Attributor) -> float:
    """Return the cost of prediction and attribution for one image, in forward passes.

    Args:
        task: a model and the shape of its images.
        method: name under which the cost is cached.
        attribute: the attributor that the method prepared for the task.
    """
    known = _MEASURED.setdefault(task.model, {})
    key = (method, task.shape, task.layer)
    if key not in known:
        image = noise(task.model, task.shape)
        target = torch.zeros(1, dtype=torch.long, device=image.device)
        once = _flops(lambda: answer(task.model, image))
        more = _flops(lambda: attribute(image, target))
        known[key] = (once + more) / once if once else float("nan")
    return known[key]


def _flops(run: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton

    # The counter does not support the fused attention that is used in evaluation mode.
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            run()
    finally:
        mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())
