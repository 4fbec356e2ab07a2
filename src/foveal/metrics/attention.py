"""Accuracy with attention maps replaced by another image's or by uniform maps."""

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


class AttentionAblation(NamedTuple):
    """Accuracies of a model with replaced attention maps; fractions from 0 to 1."""

    shuffled_attention_accuracy: float
    uniform_attention_accuracy: float


def attention_ablation(
    model: ImageModel, test: ImageSet, seed: int = 0, *, batch_size: int = 500
) -> AttentionAblation:
    """Return the accuracy with each image's maps replaced and its features kept.

    `shuffled`: each image gets the maps of another random image, a permutation of all images.
    `uniform`: each map is replaced by its mean, at every depth. If either is as high as the
    accuracy, the maps explain nothing.

    Args:
        model: an attention model; its mode and device are left unchanged.
        test: at least two labelled images.
        seed: seed of the permutation; the caller's random generators are left unchanged.
        batch_size: images per forward pass.

    Raises:
        UserError: there is only one image.
    """
    others = derangement(len(test), seed)
    maps = _maps(model, test.images, batch_size)
    shuffled = [maps[int(other)] for other in others]
    uniform = [[weights.mean().expand_as(weights) for weights in depths] for depths in maps]
    return AttentionAblation(
        *(
            mean_correct(_logits_with(model, test.images, replacement, batch_size), test.labels)
            for replacement in (shuffled, uniform)
        )
    )


Maps = list[Tensor]  # maps (h, w) of one image, one per depth


def _maps(model: ImageModel, images: Tensor | Photos, batch_size: int) -> list[Maps]:
    """Return the maps of each image of uint8 (N, C, H, W), or of each photograph."""
    maps: list[Maps] = []
    with evaluating(model):
        for batch in images.split(batch_size):
            depths = [weights.cpu() for weights in model.attend(model.view(batch)).maps]
            maps += [list(image_maps) for image_maps in zip(*depths, strict=True)]
    return maps


def _logits_with(
    model: ImageModel, images: Tensor | Photos, maps: list[Maps], batch_size: int
) -> Tensor:
    """Return the logits (N, classes) of uint8 images with their attention maps replaced."""
    logits: list[Tensor] = []
    first = 0
    with evaluating(model):
        for batch in images.split(batch_size):
            view = model.view(batch)
            local, original = model.attend(view)
            batch_maps = maps[first : first + len(batch)]
            first += len(batch)
            weights = [
                torch.stack([_resize(m[depth], original[depth].shape[-2:]) for m in batch_maps])
                for depth in range(len(original))
            ]
            on_device = [depth.to(model.mean.device) for depth in weights]
            decision = model.decide(view, Attended(local, on_device))
            logits.append(decision.logits.cpu())
    return torch.cat(logits)


def _resize(weights: Tensor, size: torch.Size) -> Tensor:
    """Return a map (h, w) resized for a photograph of another shape, with its sum preserved."""
    if weights.shape == size:
        return weights
    resized = F.interpolate(weights[None, None], tuple(size), mode="bilinear")[0, 0]
    return resized * (weights.sum() / resized.sum().clamp_min(1e-12))


def _measure(subject: Subject) -> dict[str, float]:
    result = attention_ablation(
        subject.model, subject.test, subject.seed, batch_size=subject.batch_size
    )
    return result._asdict()


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
