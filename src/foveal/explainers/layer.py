"""Choice of the layer whose features Grad-CAM and LayerCAM read, automatic or by name.

A location is one of the h x w positions of a feature map (B, channels, h, w).
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foveal.explainers.layout import AsFeatures, can_be_channels_first, layouts
from foveal.explainers.model_wrapper import as_foveal_model, noise_image
from foveal.explainers.task import Task
from foveal.foundation.errors import UserError, unknown_name
from foveal.models.abilities import Ability
from foveal.observation.logits import class_logits

MIN_SIDE = 4  # preferred minimum side of a feature map, in locations
# Minimum absolute mean of a gradient over locations, relative to the mean of its absolute value. A
# smaller mean is the rounding error of a mean of zero.
MIN_WEIGHT = 1e-4
# Types of layers that can be chosen automatically. Most transformers have no convolution after the
# patch embedding, but many layer normalisations.
LAYER_TYPES = (nn.Conv2d, nn.LayerNorm)

Outputs = dict[nn.Module, Tensor]


class LayerOutput(NamedTuple):
    """A layer that affects the logits of an image, with its output.

    `conversions` are the possible conversions of the output into features (B, channels, h, w),
    without those whose weights in Grad-CAM would be zero.
    """

    name: str
    layer: nn.Module
    output: Tensor
    conversions: list[AsFeatures]

    @property
    def side(self) -> int:
        """The number of locations along the shorter side of the features."""
        return min(self.conversions[0](self.output).shape[-2:])


def feature_layer(task: Task) -> tuple[nn.Module, AsFeatures]:
    """Return the last layer that preserves locations of the image and affects the logits.

    If the task names a layer, that layer is returned. Otherwise the result is the last convolution
    or layer normalisation with an output of at least 4x4 locations or, if there is none, the last
    one of any size. The choice is the same for all images of the same size.

    Layers whose weights in Grad-CAM would be zero are excluded. These are layers that no gradient
    reaches, and layers whose gradient has a mean of zero over locations: those before a softmax
    over locations, which is invariant to a constant, and those after the last attention of a
    transformer that classifies from its class token. In a focus model, which classifies patches at
    the keypoints of a detector, only layers of the detector are considered, because the others
    process patches instead of the image.

    Returns:
        The layer, and a function from its output to features (B, channels, h, w).

    Raises:
        UserError: there is no such layer, or most of the model follows it; the layer that the task
            names does not exist or cannot be used; or the layout of its output is ambiguous.
    """
    chosen = _last_layer(task) if task.layer is None else _layer_by_name(task, task.layer)
    if len(chosen.conversions) > 1:
        raise UserError(
            f"The layer {chosen.name!r} returns {tuple(chosen.output.shape)}, whose layout is "
            "ambiguous. Name the layer and pass a reshape that returns (B, channels, h, w): "
            "reshape=lambda x: x.permute(0, 3, 1, 2) for channels last, reshape=lambda x: x for "
            "channels first."
        )
    return chosen.layer, chosen.conversions[0]


def features_of(
    task: Task, layer: nn.Module, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return a layer's output, and the gradient of the targets' logits with respect to it."""
    with outputs_of([layer]) as outputs:
        scores = task.scores(images.detach().requires_grad_())
    output = outputs[layer]
    (gradient,) = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), output)
    return output.detach(), gradient


def _last_layer(task: Task) -> LayerOutput:
    """Return the layer that is chosen automatically, see `feature_layer`."""
    modules = dict(task.model.named_modules())
    # Containers, such as nn.Sequential, have no parameters except those of their children.
    layers = {name: layer for name, layer in modules.items() if [*layer.parameters(recurse=False)]}
    outputs = _layer_outputs(task, layers)
    candidates = [
        entry for entry in outputs if entry.conversions and isinstance(entry.layer, LAYER_TYPES)
    ]
    if not candidates:
        raise UserError(
            "grad-cam and layer-cam require a convolution (nn.Conv2d) or a layer normalisation "
            "that preserves locations of the image and affects the logits, but this model has "
            "none. Use integrated-gradients, gradient-x-input, occlusion or rise."
        )
    large_candidates = [entry for entry in candidates if entry.side >= MIN_SIDE]
    chosen = (large_candidates or candidates)[-1]
    _check_depth(task, chosen, outputs)
    return chosen


def _check_depth(task: Task, chosen: LayerOutput, outputs: list[LayerOutput]) -> None:
    """Raise UserError if most layers that preserve locations come after the chosen one."""
    position = next(index for index, entry in enumerate(outputs) if entry is chosen)
    later_outputs = [
        entry
        for entry in outputs[position + 1 :]
        if entry.output.ndim > 2 and not can_be_channels_first(entry.layer, entry.output, task.size)
    ]
    if len(later_outputs) > position:  # more of these than layers before the chosen one
        suggestion = ([entry for entry in later_outputs if entry.conversions] or later_outputs)[-1]
        raise UserError(
            f"The last convolution is {chosen.name!r}, but most of the model comes after it, as "
            "in a transformer after its patch embedding. Name a late layer that preserves "
            f"locations, such as layer={suggestion.name!r}."
        )


def _layer_by_name(task: Task, name: str) -> LayerOutput:
    """Return the layer of a name, or raise UserError if it does not exist or cannot be used."""
    modules = dict(task.model.named_modules())
    if name not in modules:
        raise unknown_name("layer", name, modules)
    outputs = _layer_outputs(task, {name: modules[name]})
    if not outputs or not outputs[0].conversions:
        shape = f" ({tuple(outputs[0].output.shape)})" if outputs else ""
        raise UserError(
            "Expected a layer that affects the logits and whose output has locations, as "
            "(B, channels, h, w), (B, h, w, channels) or (B, tokens, channels) of a grid of "
            f"tokens, but got {name!r}{shape}. Omit layer for an automatic choice, or pass "
            "reshape for another layout."
        )
    return outputs[0]


def _layer_outputs(task: Task, layers: Mapping[str, nn.Module]) -> list[LayerOutput]:
    """Return the outputs of the layers that affect the logits of an image, in order of use.

    In a focus model, only the outputs of layers of the detector are returned.
    """
    image = noise_image(task.model, task.shape).requires_grad_()
    foveal_model = as_foveal_model(task.model)
    if foveal_model is not None and Ability.GIVEN_KEYPOINTS in foveal_model.abilities:
        with outputs_of(layers.values()) as outputs:
            view = foveal_model.view(image)
            located = foveal_model.locate(view)
        scores = class_logits(foveal_model.decide(view, located).logits)
    else:
        with outputs_of(layers.values()) as outputs:
            scores = task.scores(image)
    tracked = {layer: output for layer, output in outputs.items() if output.requires_grad}
    if not tracked or not scores.requires_grad:
        return []
    # The image is noise, so the largest logit is as good as any other.
    gradients = torch.autograd.grad(scores.max(), list(tracked.values()), allow_unused=True)
    names = {layer: name for name, layer in layers.items()}
    return [
        LayerOutput(names[layer], layer, output, _conversions(task, layer, gradient))
        for (layer, output), gradient in zip(tracked.items(), gradients, strict=True)
        if gradient is not None and len(gradient) == 1  # one output for the one image
    ]


def _conversions(task: Task, layer: nn.Module, gradient: Tensor) -> list[AsFeatures]:
    """Return the conversions of a layer's output into features whose weights are not all zero."""
    if task.reshape is not None:
        return [task.reshape] if _has_weights(task.reshape(gradient)) else []
    return [
        as_features
        for as_features in layouts(layer, gradient, task.size)
        if _has_weights(as_features(gradient))
    ]


def _has_weights(gradient: Tensor) -> bool:
    """Return whether the mean over locations of a gradient (1, channels, h, w) is not zero.

    A channel's mean gradient is its weight in Grad-CAM. One non-zero weight is enough.
    """
    if gradient.ndim != 4 or len(gradient) != 1:
        return False
    means = gradient.mean(dim=(-2, -1)).abs().max()
    return bool(means > MIN_WEIGHT * gradient.abs().mean(dim=(-2, -1)).max())


@contextmanager
def outputs_of(layers: Iterable[nn.Module]) -> Iterator[Outputs]:
    """Yield a dictionary that each forward pass fills with the outputs of the layers.

    The outputs are in the order in which the layers last ran. If a layer returns a tuple, the first
    entry is recorded.
    """
    outputs: Outputs = {}

    def record(layer: nn.Module, inputs: object, output: object) -> object:
        outputs.pop(layer, None)
        # A named tuple is not unpacked, because it could not be put together again.
        first, *rest = output if type(output) is tuple and output else (output,)
        if not isinstance(first, Tensor):
            return output
        outputs[layer] = first
        clone = first.clone()  # the next layer may change it in place
        return clone if first is output else (clone, *rest)

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
