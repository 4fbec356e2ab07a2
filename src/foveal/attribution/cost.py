"""What an attribution costs, in forward passes."""

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.backends import mha

from foveal.attribution.asking import answer, noise, undisturbed
from foveal.attribution.methods import METHODS
from foveal.attribution.task import Attributor, Task
from foveal.errors import unknown_name

# A model is measured once, and forgotten with it.
_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], float]] = WeakKeyDictionary()


def cost_of(
    model: nn.Module, method: str, shape: tuple[int, int, int], layer: str | None = None
) -> float:
    """Return what a method costs for one image, its answer included, in forward passes.

    Measured: multiply-adds of the answer and of all that the method runs, forward and backward,
    as torch counts them (convolutions, linear layers, attention), divided by those of the answer.
    What Grad-CAM takes to find its layer, once for all images, does not count.

    Args:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, classes).
        method: a name of `METHODS`.
        shape: C, H and W of an image.
        layer: as `attribute` takes it.

    Returns:
        More than 1; not a number for a model without anything that is counted.

    Raises:
        UserError: no such method, or it cannot explain the model.
    """
    if method not in METHODS:
        raise unknown_name("attribution method", method, METHODS)
    with undisturbed(model):
        task = Task(model, shape, layer=layer)
        return measured(task, method, METHODS[method](task))


def measured(task: Task, method: str, attribute: Attributor) -> float:
    """Return `cost_of` the method that `attribute` was made of for a task."""
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
