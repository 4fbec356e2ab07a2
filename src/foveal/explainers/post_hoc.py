"""Post-hoc attribution methods, which explain any classifier from outside, as explainers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foveal.explainers.cost import measure_cost
from foveal.explainers.interface import Explainer
from foveal.explainers.model_wrapper import (
    as_foveal_model,
    as_model_input,
    check_images,
    logits_of,
    without_side_effects,
)
from foveal.explainers.task import Attributor, Task
from foveal.explanation import Explanation
from foveal.foundation.errors import at_least_one
from foveal.foundation.precision import at_least_single, check_finite
from foveal.models.abilities import Ability
from foveal.models.images import Images, as_images
from foveal.observation.logits import Targets, class_indices, class_logits, predictions
from foveal.observation.values import ATTRIBUTION, Values

MAX_PIXELS = 2**20  # maximum per pass, because a gradient keeps all features in memory


@dataclass(frozen=True)
class Options:
    """Options of a post-hoc method.

    Attributes:
        batch_size: images per forward pass, including the variants that a method makes of an
            image. It bounds the memory, and is reduced for images so large that a pass would
            exceed 2^20 pixels.
        classes: name of each class, or of class 1 for a single logit; empty for the model's names.
        layer: name of the module that a method reads features from; None for an automatic choice.
        reshape: function from the layer's output, or its gradient, to features
            (B, channels, h, w); needed only if the layout of the output is ambiguous.
        seed: seed of random masks.
    """

    batch_size: int = 64
    classes: Sequence[str] = ()
    layer: str | None = None
    reshape: Callable[[Tensor], Tensor] | None = None
    seed: int = 0


@dataclass(frozen=True)
class PostHoc(Explainer):
    """A method that explains any classifier from outside, after its decision.

    Attributes:
        name: name of the method, which its explanations report as their `method`.
        prepare: function from a task to an attributor, which computes the maps.
        values: meaning of the maps' values.
        reads_layer: whether the method reads the features of a layer, which the caller may choose.
    """

    name: str
    prepare: Callable[[Task], Attributor]
    values: Values = ATTRIBUTION
    reads_layer: bool = False
    needs: ClassVar[frozenset[Ability]] = frozenset({Ability.CLASSES})

    def cost(
        self, model: nn.Module, shape: tuple[int, int, int], layer: str | None = None
    ) -> float:
        """Return the cost of prediction and attribution for one image, in forward passes.

        The cost is the number of multiply-adds of the prediction and of all forward and backward
        passes of the method, divided by the number for the prediction. torch counts those of
        convolutions, linear layers and attention. The passes in which Grad-CAM's layer is chosen
        are not counted, because they are needed only once for all images.

        Args:
            model: images (B, C, H, W) in [0, 1] -> logits (B, classes).
            shape: C, H and W of an image.
            layer: name of the module to read features from; None for an automatic choice.

        Returns:
            A value above 1; NaN for a model without any counted operation.

        Raises:
            UserError: the method cannot explain the model.
        """
        with without_side_effects(model):
            task = Task(model, shape, layer=layer)
            return measure_cost(task, self.name, self.prepare(task))

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Targets | None = None,
        options: Options = Options(),
    ) -> Explanation:
        """Return the attribution of a class to each pixel; the arguments are as in `attribute`."""
        batch_size = at_least_one("batch_size", options.batch_size)
        images = as_images(images)
        check_images(model, images)
        with without_side_effects(model):
            channels, height, width = images.shape[1:]
            batch_size = max(1, min(batch_size, MAX_PIXELS // (height * width)))
            shape = (channels, height, width)
            task = Task(model, shape, batch_size, options.seed, options.layer, options.reshape)
            logits = _logits(task, images)
            indices = _target_indices(targets, logits)
            attribute = self.prepare(task)
            cost = measure_cost(task, self.name, attribute)
            maps = _maps(task, attribute, images, indices)
        foveal_model = as_foveal_model(model)
        check_finite(f"The maps of {self.name}", maps)
        model_classes = () if foveal_model is None else foveal_model.inputs.classes
        return Explanation(
            images=images.detach().cpu(),
            logits=logits,
            maps=maps,
            classes=tuple(options.classes or model_classes),
            method=self.name,
            cost=cost,
            values=self.values,
        )


def _logits(task: Task, images: Tensor) -> Tensor:
    """Return the logits (B, classes) of all images, on the CPU."""
    batches = images.split(task.batch_size)
    outputs = [logits_of(task.model, as_model_input(task.model, batch)).cpu() for batch in batches]
    logits = at_least_single(torch.cat(outputs))
    check_finite("The logits of the model", logits)
    return logits


def _maps(task: Task, attribute: Attributor, images: Tensor, targets: Tensor) -> Tensor:
    """Return the maps (B, 1, H, W) of all images, on the CPU."""
    maps = []
    batches = zip(images.split(task.batch_size), targets.split(task.batch_size), strict=True)
    for batch, indices in batches:
        inputs = as_model_input(task.model, batch)
        maps.append(at_least_single(attribute(inputs, indices.to(inputs.device))).cpu())
    return torch.cat(maps)


def _target_indices(targets: Targets | None, logits: Tensor) -> Tensor:
    """Return the indices (B,) of the classes to explain: the targets, or the predicted classes."""
    if targets is None:
        return predictions(logits)
    return class_indices(targets, len(logits), class_logits(logits).shape[1])
