"""Figures, which are values of metrics, of one model and of its explanations by one method.

A method is the name of an explainer: the model itself, or a post-hoc one such as Grad-CAM.
"""

import math
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

CHUNK = 100  # maximum number of images explained at a time; bounds the memory
# Maximum number of pixels explained at a time: for gradients, the features of all layers are kept.
MAX_PIXELS = 2**20

# The class whose logit is explained: the model's prediction, or the true class.
ANSWER, LABEL = "answer", "label"


@dataclass(frozen=True)
class MeasuredModel:
    """A model and the images to measure it on.

    Attributes:
        name: name of the model.
        network: the model.
        digest: SHA-256 of its weights.
        test: labelled images; their class indices are those of the model.
        train: images to train probes on, or None.
        judge: a classifier, trained independently, that judges the evidence; or None.
        seed: random seed of probes, pairs and noise.
        explain: class whose logit is explained: `answer` (the prediction) or `label` (the true
            class).
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
    """Return the figures of a model, including those that are measured on a sample of images."""
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
    """Return the figures of a model's explanations by a method.

    Most are means over the images. A metric with a `sample` is measured only on about as many of
    the first images. A figure that is undefined for these images is omitted.
    """
    values: dict[str, list[Tensor]] = {}  # values per image by figure, a tensor per batch
    image_count = 0  # images of the batches that have been measured
    for batch in _explained_batches(model, method):
        for metric in EXPLANATION_METRICS.values():
            limit = metric.sample or len(model.test)
            if metric.needs <= batch.meets and image_count < limit:
                for key, value in metric.measure(batch).items():
                    values.setdefault(key, []).append(value.double())
        image_count += len(batch.test)
    figures = {
        column.key: metric.pool(torch.cat(values[column.key]))
        for metric in EXPLANATION_METRICS.values()
        for column in metric.columns
        if column.key in values
    }
    return {key: value for key, value in figures.items() if not math.isnan(value)}


def _explained_batches(model: MeasuredModel, method: str) -> Iterator[Explained]:
    """Yield batches of the test images with their explanations, and how long these took."""
    for number, batch in enumerate(model.test.batches(CHUNK, MAX_PIXELS)):
        targets = targets_of(batch, model.explain)
        explain = partial(explainer(method), model.network, targets=targets)
        images = as_floats(batch.images)
        start = time.perf_counter()
        explanation = explain(images)
        seconds = time.perf_counter() - start
        yield Explained(
            model=model.network,
            explanation=explanation,
            test=batch,
            explain=explain,
            judge=model.judge,
            targets=targets,
            seconds=seconds,
            seed=model.seed + number,
        )


def targets_of(test: ImageSet, explain: str) -> Tensor | None:
    """Return the classes (N,) to explain: the labels, or None for the model's predictions.

    Args:
        test: N labelled images.
        explain: `answer` or `label`.
    """
    return test.labels if explain == LABEL else None


def published_figures(model: MeasuredModel, method: str, count: int) -> dict[str, Any]:
    """Return the published metrics, computed by Quantus, of a model's explanations by a method.

    Args:
        model: the model and its images.
        method: name of an explainer.
        count: number of images to measure on, which are drawn at random.
    """
    test = model.test.few(count, model.seed)
    explain = explainer(method)

    def explain_heat(network: Any, images: Tensor, targets: Tensor) -> Tensor:
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
        explain=explain_heat,
    )
    figures = {f"published_{name}": value for name, value in results.items()}
    return {"published_images": len(test), **figures}
