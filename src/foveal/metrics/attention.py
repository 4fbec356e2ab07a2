"""Attention maps replaced: the accuracy with another image's maps, and with uniform ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.columns import Column
from foveal.images.photos import Photos
from foveal.metrics.accuracy import mean_correct
from foveal.metrics.metric import Metric
from foveal.metrics.observing import evaluating
from foveal.metrics.random_focus import derangement
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.attention_maps import Attended
from foveal.models.image_model import ImageModel


class MapsWorth(NamedTuple):
    """Accuracies of a model whose maps are not its own; fractions from 0 to 1."""

    shuffled_attention_accuracy: float
    uniform_attention_accuracy: float


def maps_worth(
    model: ImageModel, test: ImageSet, seed: int = 0, *, batch_size: int = 500
) -> MapsWorth:
    """Return the accuracy with each image's maps replaced, its features kept.

    `shuffled`: by those of another random image; each lends its maps to exactly one other.
    `uniform`: at every depth by the map's own mean, the same at every location. Where either is as
    good as the accuracy, the maps explain nothing.

    Args:
        model: an attention model; its mode and device stay as they are.
        test: at least two labelled images.
        seed: of the exchange; the caller's random numbers stay what they were.
        batch_size: images in one forward pass.

    Raises:
        UserError: there is only one image.
    """
    others = derangement(len(test), seed)
    maps = _maps(model, test.images, batch_size)
    shuffled = [maps[int(other)] for other in others]
    uniform = [[one.mean().expand_as(one) for one in depths] for depths in maps]
    return MapsWorth(
        *(
            mean_correct(_logits_with(model, test.images, given, batch_size), test.labels)
            for given in (shuffled, uniform)
        )
    )


Maps = list[Tensor]  # (h, w) of one image, one per depth


def _maps(model: ImageModel, images: Tensor | Photos, batch_size: int) -> list[Maps]:
    """Return the maps of each uint8 image of (N, C, H, W), or of each photograph."""
    found: list[Maps] = []
    with evaluating(model):
        for batch in images.split(batch_size):
            depths = [weights.cpu() for weights in model.attend(model.view(batch)).maps]
            found += [list(one) for one in zip(*depths, strict=True)]
    return found


def _logits_with(
    model: ImageModel, images: Tensor | Photos, maps: list[Maps], batch_size: int
) -> Tensor:
    """Return the logits (N, classes) of uint8 images weighed by given maps."""
    logits: list[Tensor] = []
    first = 0
    with evaluating(model):
        for batch in images.split(batch_size):
            view = model.view(batch)
            local, own = model.attend(view)
            given = maps[first : first + len(batch)]
            first += len(batch)
            weights = [
                torch.stack([_resized(one[depth], own[depth].shape[-2:]) for one in given])
                for depth in range(len(own))
            ]
            moved = [depth.to(model.mean.device) for depth in weights]
            decided = model.decide(view, Attended(local, moved))
            logits.append(decided.logits.cpu())
    return torch.cat(logits)


def _resized(weights: Tensor, size: torch.Size) -> Tensor:
    """Return a map (h, w) at another size, its sum as it was: of a photograph of another shape."""
    if weights.shape == size:
        return weights
    resized = F.interpolate(weights[None, None], tuple(size), mode="bilinear")[0, 0]
    return resized * (weights.sum() / resized.sum().clamp_min(1e-12))


def _measure(subject: Subject) -> dict[str, float]:
    model = subject.model  # as `needs` says
    return maps_worth(model, subject.test, subject.seed, batch_size=subject.batch_size)._asdict()


ATTENTION = Metric(
    "attention",
    _measure,
    (
        Column(
            "shuffled_attention_accuracy",
            "shuffled maps",
            "{:.2%}",
            "accuracy with each image's attention maps replaced by those of another image",
            "lower",
        ),
        Column(
            "uniform_attention_accuracy",
            "uniform maps",
            "{:.2%}",
            "accuracy with every attention map replaced by its mean",
            "lower",
        ),
    ),
    needs=frozenset({Ability.GIVEN_MAPS}),
)
