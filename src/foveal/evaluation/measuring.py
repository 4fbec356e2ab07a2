"""Figures of one model, and of its explanations by one method."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explainers import explainer
from foveal.images.values import as_floats
from foveal.metrics import evaluate
from foveal.metrics.figures import measured_on_samples
from foveal.metrics.published import published
from foveal.metrics.registry import EXPLANATION_METRICS
from foveal.metrics.subject import Explained, Subject
from foveal.models import ImageModel

CHUNK = 100  # images explained at a time; bounds the memory
PIXELS = 2**20  # pixels explained at a time; gradients keep all features of an image

ANSWER, LABEL = "answer", "label"  # the class whose logit is explained


@dataclass(frozen=True)
class Measured:
    """A model and the images to measure it on.

    Attributes:
        name: the name of the model.
        network: the model.
        digest: SHA-256 of its weights.
        test: labelled images; their class indices are those of the model.
        train: images to train probes on, or None.
        judge: a classifier that judges the evidence, or None.
        seed: random seed of probes, pairs and noise.
        explain: class whose logit is explained: `answer` (the prediction) or `label`.
    """

    name: str
    network: ImageModel
    digest: str
    test: ImageSet
    train: ImageSet | None
    judge: ImageModel | None
    seed: int
    explain: str


def model_figures(one: Measured) -> dict[str, Any]:
    """Return the figures of a model."""
    found = evaluate(
        one.network, one.test, one.train, judge=one.judge, name=one.name, seed=one.seed
    )
    subject = Subject(one.network, one.test, one.train, one.judge, seed=one.seed)
    return found | measured_on_samples(subject)


def explanation_figures(one: Measured, method: str) -> dict[str, Any]:
    """Return the figures of a model's explanations by a method, as means over the images."""
    values: dict[str, list[Tensor]] = {}
    done = 0
    for batch in _explained_batches(one, method):
        for metric in EXPLANATION_METRICS.values():
            if metric.needs <= batch.meets and done < (metric.sample or len(one.test)):
                for key, value in metric.measure(batch).items():
                    values.setdefault(key, []).append(value.double())
        done += len(batch.test)
    means = {
        column.key: metric.pool(torch.cat(values[column.key]))
        for metric in EXPLANATION_METRICS.values()
        for column in metric.columns
        if column.key in values
    }
    return {key: value for key, value in means.items() if value == value}


def _explained_batches(one: Measured, method: str) -> Iterator[Explained]:
    for number, few in enumerate(one.test.batches(CHUNK, PIXELS)):
        targets = targets_of(few, one.explain)
        explained = partial(explainer(method), one.network, targets=targets)
        images = as_floats(few.images)
        started = time.perf_counter()
        explanation = explained(images)
        seconds = time.perf_counter() - started
        yield Explained(
            one.network, explanation, few, explained, one.judge, targets, seconds, one.seed + number
        )


def targets_of(test: ImageSet, explain: str) -> Tensor | None:
    """Return the explained classes (N,): the labels, or None for the model's predictions."""
    return test.labels if explain == LABEL else None


def published_figures(one: Measured, method: str, images: int) -> dict[str, Any]:
    """Return the figures of the published metrics for one method, measured on some images."""
    test = one.test.few(images, one.seed)
    explained = explainer(method)

    def heat(model: Any, images: Tensor, targets: Tensor) -> Tensor:
        return explained(model, images, targets).heat

    targets = targets_of(test, one.explain)
    explanation = explained(one.network, as_floats(test.images), targets)
    found = published(
        one.network,
        explanation,
        explanation.predictions if targets is None else targets,
        masks=test.masks,
        sample=len(test),
        seed=one.seed,
        explain=heat,
    )
    figures = {f"published_{name}": value for name, value in found.items()}
    return {"published_images": len(test), **figures}
