"""Post-hoc methods as explainers: a method and what its values mean -> Explanations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from foveal.explainers.cost import measured
from foveal.explainers.interface import Explainer
from foveal.explainers.model_wrapper import answer, check_images, given, known, undisturbed
from foveal.explainers.task import Attributor, Task
from foveal.explanation import Explanation
from foveal.foundation.errors import at_least_one
from foveal.foundation.precision import at_least_single, check_finite
from foveal.models.abilities import Ability
from foveal.models.images import Images, as_images
from foveal.observation.logits import Targets, class_logits, class_numbers, predictions
from foveal.observation.values import ATTRIBUTION, Values

PIXELS = 2**20  # in one pass; for a gradient, all features of a backbone are kept


@dataclass(frozen=True)
class PostHoc(Explainer):
    """A method that explains any classifier from outside, after its decision.

    Attributes:
        name: `method` of its explanations.
        prepare: returns for a task the function that computes its maps.
        values: what the values of the maps mean.
        reads_layer: whether it reads the features of a layer, which can be named.
    """

    name: str
    prepare: Callable[[Task], Attributor]
    values: Values = ATTRIBUTION
    reads_layer: bool = False
    needs: ClassVar[frozenset[Ability]] = frozenset({Ability.CLASSES})

    def cost(
        self, model: nn.Module, shape: tuple[int, int, int], layer: str | None = None
    ) -> float:
        """Return what the method costs for one image, its answer included, in forward passes.

        Measured: multiply-adds of the answer and of all that the method runs, forward and backward,
        as torch counts them (convolutions, linear layers, attention), divided by those of the
        answer. What Grad-CAM takes to find its layer, once for all images, does not count.

        Args:
            model: maps images (B, C, H, W) in [0, 1] to logits (B, classes).
            shape: C, H and W of an image.
            layer: as `attribute` takes it.

        Returns:
            More than 1; not a number for a model without anything that is counted.

        Raises:
            UserError: it cannot explain the model.
        """
        with undisturbed(model):
            task = Task(model, shape, layer=layer)
            return measured(task, self.name, self.prepare(task))

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        targets: Targets | None = None,
        *,
        batch_size: int = 64,
        classes: Sequence[str] = (),
        layer: str | None = None,
        reshape: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Explanation:
        """Return how much each pixel speaks for a class: see `attribute`."""
        batch_size = at_least_one("batch_size", batch_size)
        images = as_images(images)
        check_images(model, images)
        with undisturbed(model):
            channels, height, width = images.shape[1:]
            batch_size = max(1, min(batch_size, PIXELS // (height * width)))
            batches = images.split(batch_size)
            answers = [answer(model, given(model, batch)).cpu() for batch in batches]
            logits = at_least_single(torch.cat(answers))
            check_finite("The logits of the model", logits)
            chosen = _targets(targets, logits)
            task = Task(model, (channels, height, width), batch_size, seed, layer, reshape)
            attribute = self.prepare(task)
            cost = measured(task, self.name, attribute)
            maps = []
            for batch, numbers in zip(batches, chosen.split(batch_size), strict=True):
                moved = given(model, batch)
                maps.append(at_least_single(attribute(moved, numbers.to(moved.device))).cpu())
        found = torch.cat(maps)
        own = known(model)
        check_finite(f"The maps of {self.name}", found)
        return Explanation(
            images=images.detach().cpu(),
            logits=logits,
            maps=found,
            classes=tuple(classes or (own.inputs.classes if own is not None else ())),
            method=self.name,
            cost=cost,
            values=self.values,
        )


def _targets(targets: Targets | None, logits: Tensor) -> Tensor:
    """Return the classes (B,) that are explained, for logits (B, classes)."""
    if targets is None:
        return predictions(logits)
    return class_numbers(targets, len(logits), class_logits(logits).shape[1])
