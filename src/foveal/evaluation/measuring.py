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
from foveal.metrics.figures import measure_on_samples
from foveal.metrics.published import published
from foveal.metrics.registry import EXPLANATION_METRICS
from foveal.metrics.subject import Explained, Subject
from foveal.models import ImageModel

CHUNK = 100  # images explained at a time; bounds the memory
PIXELS = 2**20  # pixels explained at a time; gradients keep all features of an image

ANSWER, LABEL = "answer", "label"  # the class whose logit is explained


@dataclass(frozen=True)
class MeasuredModel:
    """A model and the images to measure it on.

    Attributes:
        name: name of the model.
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


def model_figures(model: MeasuredModel) -> dict[str, Any]:
    """Return the figures of a model."""
    figures = evaluate(
        model.network,
        model.test,
        model.train,
        judge=model.judge,
        name=model.name,
        seed=model.seed,
    )
    subject = Subject(model.network, model.test, model.train, model.judge, seed=model.seed)
    return figures | measure_on_samples(subject)


def explanation_figures(model: MeasuredModel, method: str) -> dict[str, Any]:
    """Return the figures of a model's explanations by a method, as means over the images."""
    values: dict[str, list[Tensor]] = {}
    done = 0
    for batch in _explained_batches(model, method):
        for metric in EXPLANATION_METRICS.values():
            if metric.needs <= batch.meets and done < (metric.sample or len(model.test)):
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


def _explained_batches(model: MeasuredModel, method: str) -> Iterator[Explained]:
    for number, batch in enumerate(model.test.batches(CHUNK, PIXELS)):
        targets = targets_of(batch, model.explain)
        explain = partial(explainer(method), model.network, targets=targets)
        images = as_floats(batch.images)
        start = time.perf_counter()
        explanation = explain(images)
        seconds = time.perf_counter() - start
        yield Explained(
            model.network,
            explanation,
            batch,
            explain,
            model.judge,
            targets,
            seconds,
            model.seed + number,
        )


def targets_of(test: ImageSet, explain: str) -> Tensor | None:
    """Return the explained classes (N,): the labels, or None for the model's predictions."""
    return test.labels if explain == LABEL else None


def published_figures(model: MeasuredModel, method: str, images: int) -> dict[str, Any]:
    """Return the published metrics of one method, measured on a sample of `images` images."""
    test = model.test.few(images, model.seed)
    explain = explainer(method)

    def heat(network: Any, images: Tensor, targets: Tensor) -> Tensor:
        return explain(network, images, targets).heat

    targets = targets_of(test, model.explain)
    explanation = explain(model.network, as_floats(test.images), targets)
    results = published(
        model.network,
        explanation,
        explanation.predictions if targets is None else targets,
        masks=test.masks,
        sample=len(test),
        seed=model.seed,
        explain=heat,
    )
    figures = {f"published_{name}": value for name, value in results.items()}
    return {"published_images": len(test), **figures}
