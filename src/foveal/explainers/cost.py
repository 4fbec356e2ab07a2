"""What an attribution costs, in forward passes."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.backends import mha

from foveal.explainers.model_wrapper import answer, noise
from foveal.explainers.task import Attributor, Task

# A model is measured once, and forgotten with it.
_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], float]] = WeakKeyDictionary()


def measured(task: Task, method: str, attribute: Attributor) -> float:
    """Return what a method costs for one image, its answer included, in forward passes.

    Args:
        task: a model and the shape of its images.
        method: a name by which the cost is remembered.
        attribute: prepared by the method for the task.
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

    # The fused attention of evaluation is one operation that the counter knows nothing of.
    fused = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            run()
    finally:
        mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops())
