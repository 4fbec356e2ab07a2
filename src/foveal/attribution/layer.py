"""Which layer's features Grad-CAM reads: found by itself, or by its name."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from foveal.attribution.asking import noise
from foveal.attribution.task import Task
from foveal.errors import UserError, unknown_name
from foveal.models.focus_model import FocusModel

PLACES = 4  # a side of features that can still say where
LEAST = 1e-4  # of the mean size of a gradient: what is less is a sum of zero, rounded

Outputs = dict[nn.Module, Tensor]


def feature_layer(task: Task) -> nn.Module:
    """Return the last convolution that says where in the image, and has a say in the answer.

    That is the last one run whose output keeps 4x4 places or more, or else the last one; it is
    the same for all images of a size. One that Grad-CAM can give no weight does not count: no
    gradient reaches it, or one that is zero in the mean over places (before a softmax over
    places, which ignores what is added to all). Nor do those of patches: a focus model's are
    sought in its detector.

    Raises:
        UserError: no convolution is left, or the one that the task names is not there or of no
            use.
    """
    if task.layer is not None:
        return _named(task, task.layer)
    convolutions = [module for module in task.model.modules() if isinstance(module, nn.Conv2d)]
    found = _telling(task, convolutions)
    if not found:
        raise UserError(
            "grad-cam needs a convolution (nn.Conv2d) that sees the whole image, and this model "
            "has none. Take integrated-gradients, gradient-x-input, occlusion or rise."
        )
    wide = [layer for layer, features in found.items() if min(features.shape[-2:]) >= PLACES]
    return (wide or list(found))[-1]


def _named(task: Task, name: str) -> nn.Module:
    modules = dict(task.model.named_modules())
    if name not in modules:
        raise unknown_name("layer", name, modules)
    if not _telling(task, [modules[name]]):
        raise UserError(
            f"Expected a layer whose output is (B, channels, h, w) and has a say in the answer, "
            f"but {name!r} is none. Without a layer, grad-cam finds one."
        )
    return modules[name]


def _telling(task: Task, layers: Iterable[nn.Module]) -> Outputs:
    """Return those of the layers that Grad-CAM can weigh, with their output, in order of use."""
    image = noise(task.model, task.shape).requires_grad_()
    with _outputs(layers) as outputs:
        if isinstance(task.model, FocusModel):
            places = task.model.find(image)
        else:
            logits = task.model(image)
    if isinstance(task.model, FocusModel):
        logits = task.model.decide(image, *places).logits
    followed = {layer: seen for layer, seen in outputs.items() if seen.requires_grad}
    if not followed or not logits.requires_grad:
        return {}
    gradients = torch.autograd.grad(logits.max(), list(followed.values()), allow_unused=True)
    pairs = zip(followed.items(), gradients, strict=True)
    return {layer: seen for (layer, seen), gradient in pairs if _tells(gradient)}


def _tells(gradient: Tensor | None) -> bool:
    if gradient is None or gradient.ndim != 4 or len(gradient) != 1:
        return False
    means = gradient.mean(dim=(-2, -1)).abs().max()
    return bool(means > LEAST * gradient.abs().mean(dim=(-2, -1)).max())


@contextmanager
def _outputs(layers: Iterable[nn.Module]) -> Iterator[Outputs]:
    """Give what the layers return when they are run last, in that order."""
    outputs: Outputs = {}

    def keep(layer: nn.Module, inputs: object, output: object) -> object:
        outputs.pop(layer, None)
        if not isinstance(output, Tensor):
            return output
        outputs[layer] = output
        return output.clone()  # what comes next may change it in place

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
