"""Choice of the layer that Grad-CAM and LayerCAM read, automatic or by name."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foveal.explainers.layout import AsFeatures, can_be_channels_first, layouts
from foveal.explainers.model_wrapper import known, noise
from foveal.explainers.task import Task
from foveal.foundation.errors import UserError, unknown_name
from foveal.models.abilities import Ability
from foveal.observation.logits import class_logits

MIN_SIDE = 4  # preferred minimum side of a feature map, in locations
MIN_WEIGHT = 1e-4  # relative to the mean absolute gradient; smaller is a rounded sum of zero
KINDS = (nn.Conv2d, nn.LayerNorm)  # layers chosen automatically; transformers have only the latter

Outputs = dict[nn.Module, Tensor]


class LayerOutput(NamedTuple):
    """A layer that affects the logits of an image, with its output."""

    name: str
    layer: nn.Module
    output: Tensor
    ways: list[AsFeatures]  # conversions of its output into features with non-zero weights

    @property
    def side(self) -> int:
        """The shorter side of its features, in locations."""
        return min(self.ways[0](self.output).shape[-2:])


def feature_layer(task: Task) -> tuple[nn.Module, AsFeatures]:
    """Return the last layer that preserves locations of the image and affects the logits.

    That is the last convolution or layer normalisation with an output of at least 4x4 locations,
    or else the last one of any size; it is the same for all images of a size. Layers to which
    Grad-CAM can give no weight are excluded: no gradient reaches them, or one whose mean over
    locations is zero (before a softmax over locations, which is invariant to a constant; or after
    the last attention of a transformer that classifies from its class token). Layers that process
    patches are excluded as well: in a focus model, only the detector's are considered.

    Returns:
        The layer, and a function from its output to features (B, channels, h, w).

    Raises:
        UserError: there is no such layer, or only one before most of the model; the layer that the
            task names does not exist or cannot be used; or the layout of its output is ambiguous.
    """
    found = _last(task) if task.layer is None else _named(task, task.layer)
    if len(found.ways) > 1:
        raise UserError(
            f"The layer {found.name!r} returns {tuple(found.output.shape)}, whose layout is "
            "ambiguous. Name the layer and pass a reshape that returns (B, channels, h, w): "
            "reshape=lambda x: x.permute(0, 3, 1, 2) for channels last, reshape=lambda x: x for "
            "channels first."
        )
    return found.layer, found.ways[0]


def features_of(
    task: Task, layer: nn.Module, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a layer's output for images, and the gradient of the targets' logits in it."""
    with outputs_of([layer]) as outputs:
        scores = task.scores(images.detach().requires_grad_())
    output = outputs[layer]
    (gradient,) = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), output)
    return output.detach(), gradient


def _last(task: Task) -> LayerOutput:
    named = dict(task.model.named_modules())
    leaves = {name: part for name, part in named.items() if [*part.parameters(recurse=False)]}
    ran = _run(task, leaves)
    usable = [one for one in ran if one.ways and isinstance(one.layer, KINDS)]
    if not usable:
        raise UserError(
            "grad-cam and layer-cam require a convolution (nn.Conv2d) or a layer normalisation "
            "that preserves locations of the image and affects the logits, but this model has "
            "none. Use integrated-gradients, gradient-x-input, occlusion or rise."
        )
    wide = [one for one in usable if one.side >= MIN_SIDE]
    chosen = (wide or usable)[-1]
    _check_depth(task, chosen, ran)
    return chosen


def _check_depth(task: Task, chosen: LayerOutput, ran: list[LayerOutput]) -> None:
    """Raise UserError if most layers that preserve locations come after the chosen one."""
    before = next(index for index, one in enumerate(ran) if one is chosen)
    after = [
        one
        for one in ran[before + 1 :]
        if one.output.ndim > 2 and not can_be_channels_first(one.layer, one.output, task.size)
    ]
    if len(after) > before:
        late = ([one for one in after if one.ways] or after)[-1]
        raise UserError(
            f"The last convolution is {chosen.name!r}, but most of the model comes after it, as "
            "in a transformer after its patch embedding. Name a late layer that preserves "
            f"locations, such as layer={late.name!r}."
        )


def _named(task: Task, name: str) -> LayerOutput:
    modules = dict(task.model.named_modules())
    if name not in modules:
        raise unknown_name("layer", name, modules)
    ran = _run(task, {name: modules[name]})
    if not ran or not ran[0].ways:
        shape = f" ({tuple(ran[0].output.shape)})" if ran else ""
        raise UserError(
            "Expected a layer that affects the logits and whose output has locations, as "
            "(B, channels, h, w), (B, h, w, channels) or (B, tokens, channels) of a grid of "
            f"tokens, but got {name!r}{shape}. Leave layer out for an automatic choice, or pass "
            "reshape for another layout."
        )
    return ran[0]


def _run(task: Task, layers: Mapping[str, nn.Module]) -> list[LayerOutput]:
    """Return those of the layers that affect the logits of one image, in order of use."""
    image = noise(task.model, task.shape).requires_grad_()
    own = known(task.model)
    if own is not None and Ability.GIVEN_KEYPOINTS in own.abilities:
        focus = own
        with outputs_of(layers.values()) as outputs:
            view = focus.view(image)
            located = focus.locate(view)
        scores = class_logits(focus.decide(view, located).logits)
    else:
        with outputs_of(layers.values()) as outputs:
            scores = task.scores(image)
    tracked = {layer: output for layer, output in outputs.items() if output.requires_grad}
    if not tracked or not scores.requires_grad:
        return []
    gradients = torch.autograd.grad(scores.max(), list(tracked.values()), allow_unused=True)
    names = {layer: name for name, layer in layers.items()}
    return [
        LayerOutput(names[layer], layer, output, _ways(task, layer, gradient))
        for (layer, output), gradient in zip(tracked.items(), gradients, strict=True)
        if gradient is not None and len(gradient) == 1
    ]


def _ways(task: Task, layer: nn.Module, gradient: Tensor) -> list[AsFeatures]:
    """Return the conversions of a layer's output into features with non-zero weights."""
    if task.reshape is not None:
        return [task.reshape] if _has_weights(task.reshape(gradient)) else []
    return [way for way in layouts(layer, gradient, task.size) if _has_weights(way(gradient))]


def _has_weights(gradient: Tensor) -> bool:
    """Return whether the mean gradient over locations of a (1, channels, h, w) is not zero."""
    if gradient.ndim != 4 or len(gradient) != 1:
        return False
    means = gradient.mean(dim=(-2, -1)).abs().max()
    return bool(means > MIN_WEIGHT * gradient.abs().mean(dim=(-2, -1)).max())


@contextmanager
def outputs_of(layers: Iterable[nn.Module]) -> Iterator[Outputs]:
    """Yield a dictionary that is filled with the layers' outputs, ordered by their last run.

    If a layer returns a tuple, its output is the first entry.
    """
    outputs: Outputs = {}

    def keep(layer: nn.Module, inputs: object, output: object) -> object:
        outputs.pop(layer, None)
        first, *more = output if type(output) is tuple and output else (output,)
        if not isinstance(first, Tensor):
            return output
        outputs[layer] = first
        clone = first.clone()  # the next layer may change it in place
        return clone if first is output else (clone, *more)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
