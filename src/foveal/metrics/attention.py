"""Accuracy with attention maps replaced by another image's or by uniform maps.

An attention model weights the features of its backbone by maps (h, w), one for each of several
depths, which are stages of the backbone.
"""

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
    """Accuracies, from 0 to 1, of a model whose attention maps are replaced."""

    shuffled_attention_accuracy: float
    uniform_attention_accuracy: float


def attention_ablation(
    model: ImageModel, test: ImageSet, seed: int = 0, *, batch_size: int = 500
) -> AttentionAblation:
    """Return the accuracies when each image's maps are replaced and its features are kept.

    In the first (`shuffled`), each image gets the maps of another image, by a random permutation of
    all images. In the second (`uniform`), each map at every depth is replaced by its mean. If
    either is as high as the accuracy with the original maps, the maps explain nothing.

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
    uniform = [[weights.mean().expand_as(weights) for weights in image_maps] for image_maps in maps]
    shuffled_logits = _logits_with_maps(model, test.images, shuffled, batch_size)
    uniform_logits = _logits_with_maps(model, test.images, uniform, batch_size)
    return AttentionAblation(
        shuffled_attention_accuracy=mean_correct(shuffled_logits, test.labels),
        uniform_attention_accuracy=mean_correct(uniform_logits, test.labels),
    )


Maps = list[Tensor]  # the maps (h, w) of one image, one per depth


def _maps(model: ImageModel, images: Tensor | Photos, batch_size: int) -> list[Maps]:
    """Return the maps of each of the images, uint8 (N, C, H, W) or photographs."""
    maps: list[Maps] = []
    with evaluating(model):
        for batch in images.split(batch_size):
            by_depth = [weights.cpu() for weights in model.attend(model.view(batch)).maps]
            maps += [list(image_maps) for image_maps in zip(*by_depth, strict=True)]
    return maps


def _logits_with_maps(
    model: ImageModel, images: Tensor | Photos, maps: list[Maps], batch_size: int
) -> Tensor:
    """Return the logits (N, classes) of uint8 images or photographs with the given maps."""
    logits: list[Tensor] = []
    start = 0
    with evaluating(model):
        for batch in images.split(batch_size):
            view = model.view(batch)
            features, original_maps = model.attend(view)
            batch_maps = maps[start : start + len(batch)]
            start += len(batch)
            new_maps = []
            for depth, original in enumerate(original_maps):
                size = original.shape[-2:]
                resized = [_resize(image_maps[depth], size) for image_maps in batch_maps]
                new_maps.append(torch.stack(resized).to(model.mean.device))
            decision = model.decide(view, Attended(features, new_maps))
            logits.append(decision.logits.cpu())
    return torch.cat(logits)


def _resize(weights: Tensor, size: torch.Size) -> Tensor:
    """Return a map (h, w) resized to the size of another photograph's map, with the same sum."""
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
