"""The layer whose features Grad-CAM and LayerCAM read: found by itself, or by its name."""

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

PLACES = 4  # a side of features that can still say where
LEAST = 1e-4  # of the mean size of a gradient: what is less is a sum of zero, rounded
KINDS = (nn.Conv2d, nn.LayerNorm)  # of layers that are chosen; transformers have no convolutions

Outputs = dict[nn.Module, Tensor]


class Ran(NamedTuple):
    """A layer that has a say in the answer for one image."""

    name: str
    layer: nn.Module
    output: Tensor
    ways: list[AsFeatures]  # to read features from its output that Grad-CAM can weigh

    @property
    def side(self) -> int:
        """The shorter side of its features, in locations."""
        return min(self.ways[0](self.output).shape[-2:])


def feature_layer(task: Task) -> tuple[nn.Module, AsFeatures]:
    """Return the last layer that says where in the image, and has a say in the answer.

    That is the last convolution or layer normalisation run whose output keeps 4x4 places or more,
    or else the last one; it is the same for all images of a size. One that Grad-CAM can give no
    weight does not count: no gradient reaches it, or one that is zero in the mean over places
    (before a softmax over places, which ignores what is added to all; or behind the last
    attention of a transformer that answers from its class token). Nor do those of patches: a
    focus model's are sought in its detector.

    Returns:
        The layer, and what makes features (B, channels, h, w) of its output.

    Raises:
        UserError: no such layer is left, or only one before all that the model does with the
            image; the one that the task names is not there or of no use; or its layout is open.
    """
    found = _last(task) if task.layer is None else _named(task, task.layer)
    if len(found.ways) > 1:
        raise UserError(
            f"The layer {found.name!r} returns {tuple(found.output.shape)}, which can be read as "
            "features in more than one way. Name the layer and give reshape, which returns "
            "(B, channels, h, w): reshape=lambda x: x.permute(0, 3, 1, 2) for channels last, "
            "reshape=lambda x: x for channels first."
        )
    return found.layer, found.ways[0]


def features_of(
    task: Task, layer: nn.Module, images: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a layer returns for images, and the gradient of the targets' logits by it."""
    with outputs_of([layer]) as outputs:
        scores = task.scores(images.detach().requires_grad_())
    output = outputs[layer]
    (gradient,) = torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), output)
    return output.detach(), gradient


def _last(task: Task) -> Ran:
    named = dict(task.model.named_modules())
    leaves = {name: part for name, part in named.items() if [*part.parameters(recurse=False)]}
    ran = _run(task, leaves)
    usable = [one for one in ran if one.ways and isinstance(one.layer, KINDS)]
    if not usable:
        raise UserError(
            "grad-cam and layer-cam need a convolution (nn.Conv2d) or a layer normalisation that "
            "keeps locations of the image and has a say in the answer, and this model has none. "
            "Take integrated-gradients, gradient-x-input, occlusion or rise."
        )
    wide = [one for one in usable if one.side >= PLACES]
    chosen = (wide or usable)[-1]
    _check_depth(task, chosen, ran)
    return chosen


def _check_depth(task: Task, chosen: Ran, ran: list[Ran]) -> None:
    """Raise UserError if most of what is done with locations comes after, in layers of no kind."""
    before = next(index for index, one in enumerate(ran) if one is chosen)
    after = [
        one
        for one in ran[before + 1 :]
        if one.output.ndim > 2 and not can_be_channels_first(one.layer, one.output, task.size)
    ]
    if len(after) > before:
        late = ([one for one in after if one.ways] or after)[-1]
        raise UserError(
            f"It would read {chosen.name!r}, the last convolution, but most of the model "
            "comes after it, as in a transformer behind its patch embedding. Name a late layer "
            f"that keeps locations, such as layer={late.name!r}."
        )


def _named(task: Task, name: str) -> Ran:
    modules = dict(task.model.named_modules())
    if name not in modules:
        raise unknown_name("layer", name, modules)
    ran = _run(task, {name: modules[name]})
    if not ran or not ran[0].ways:
        shape = f" ({tuple(ran[0].output.shape)})" if ran else ""
        raise UserError(
            "Expected a layer whose output has locations, (B, channels, h, w), (B, h, w, channels) "
            "or (B, tokens, channels) of a grid of tokens, and a say in the answer, but "
            f"{name!r} is none{shape}. Without a layer, one is found; reshape reads others."
        )
    return ran[0]


def _run(task: Task, layers: Mapping[str, nn.Module]) -> list[Ran]:
    """Return those of the layers that have a say in the answer for one image, in order of use."""
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
    followed = {layer: seen for layer, seen in outputs.items() if seen.requires_grad}
    if not followed or not scores.requires_grad:
        return []
    gradients = torch.autograd.grad(scores.max(), list(followed.values()), allow_unused=True)
    names = {layer: name for name, layer in layers.items()}
    return [
        Ran(names[layer], layer, output, _ways(task, layer, gradient))
        for (layer, output), gradient in zip(followed.items(), gradients, strict=True)
        if gradient is not None and len(gradient) == 1
    ]


def _ways(task: Task, layer: nn.Module, gradient: Tensor) -> list[AsFeatures]:
    """Return how to read features from a layer's output that are not weighed by nothing."""
    if task.reshape is not None:
        return [task.reshape] if _tells(task.reshape(gradient)) else []
    return [way for way in layouts(layer, gradient, task.size) if _tells(way(gradient))]


def _tells(gradient: Tensor) -> bool:
    if gradient.ndim != 4 or len(gradient) != 1:
        return False
    means = gradient.mean(dim=(-2, -1)).abs().max()
    return bool(means > LEAST * gradient.abs().mean(dim=(-2, -1)).max())


@contextmanager
def outputs_of(layers: Iterable[nn.Module]) -> Iterator[Outputs]:
    """Give what the layers return when they are run last, in that order; of a tuple the first."""
    outputs: Outputs = {}

    def keep(layer: nn.Module, inputs: object, output: object) -> object:
        outputs.pop(layer, None)
        first, *more = output if type(output) is tuple and output else (output,)
        if not isinstance(first, Tensor):
            return output
        outputs[layer] = first
        clone = first.clone()  # what comes next may change it in place
        return clone if first is output else (clone, *more)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
