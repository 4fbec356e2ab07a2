"""Evaluation of a model on a dataset with all metrics, as in `foveal evaluate`.

A figure is the value of one column of a metric.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from foveal.datasets import ImageSet
from foveal.foundation.errors import UserError, at_least_one
from foveal.metrics.classes import with_model_classes
from foveal.metrics.metric import Metric
from foveal.metrics.registry import METRICS
from foveal.metrics.subject import Subject
from foveal.models.image_model import ImageModel


def evaluate(
    model: ImageModel,
    test: ImageSet[Any],
    train: ImageSet | None = None,
    *,
    judge: ImageModel | None = None,
    name: str | None = None,
    batch_size: int = 500,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Return a model's figures on a dataset; all rates are fractions from 0 to 1.

    Args:
        model: a model of any family; its mode, the random generators and the number of threads are
            left unchanged.
        test: labelled images that the model was not trained on; see `with_model_classes`.
        train: labelled images for the probe of `position_leakage`, which is skipped without them.
        judge: a classifier of the same classes, trained on greyed images (`augment.hide`); without
            one, sufficiency and necessity are skipped.
        name: name of the model, by default its kind.
        batch_size: images per forward pass; bounds the memory.
        seed: seed of the probe and of random draws.
        progress: called with the name of each metric before it is measured.

    Returns:
        model, data, split, images, the figures of `registry.METRICS` whose needs are met (except
        those measured on a sample), input_size ([height, width]) and seed, as JSON values.

    Raises:
        UserError: there are no images, a label is not a class, or an argument has the wrong type.
    """
    _check_types(model, test, train)
    batch_size = at_least_one("batch_size", batch_size)
    test = _match_labels(model, test, name)
    train = None if train is None else _match_labels(model, train, name)
    subject = Subject(model, test, train, judge, batch_size, seed)
    unsampled = [metric for metric in METRICS.values() if metric.sample is None]
    figures = {**_identification(subject, name), **measure(subject, unsampled, progress)}
    return {**figures, "input_size": list(subject.observed.size), "seed": seed}


def _identification(subject: Subject, name: str | None) -> dict[str, object]:
    """Return the names and the number of images that identify a subject in results."""
    model, test = subject.model, subject.test
    return {
        "model": name or model.name,
        "data": test.name,
        "split": test.split,
        "images": len(test),
    }


def measure(
    subject: Subject,
    metrics: Iterable[Metric],
    progress: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Return the figures of the metrics whose needs a subject meets.

    Args:
        subject: a model and its images.
        metrics: metrics in the order of the figures.
        progress: called with the name of each metric before it is measured.
    """
    figures: dict[str, float] = {}
    for metric in metrics:
        if metric.needs <= subject.meets:
            if progress is not None:
                progress(metric.name)
            values = metric.measure(subject)
            _check_figures(metric, values, figures)
            figures |= values
    return figures


def _check_figures(metric: Metric, values: object, others: Mapping[str, float]) -> None:
    """Raise UserError unless a metric returns plain numbers under unique keys."""
    if not isinstance(values, Mapping):
        raise UserError(
            f"Expected the metric {metric.name!r} to return a mapping from column keys to numbers, "
            f"but got {values!r:.100}."
        )
    for key, value in values.items():
        if key in others:
            raise UserError(
                f"Expected unique keys, but the metric {metric.name!r} returns {key!r}, which "
                "another metric returns too. Rename one of them."
            )
        if not isinstance(value, int | float):
            raise UserError(
                f"Expected the metric {metric.name!r} to return a number for {key!r}, but got "
                f"{type(value).__name__}."
            )


def measure_on_samples(subject: Subject) -> dict[str, float]:
    """Return the figures of the metrics that require too many passes for all images.

    Args:
        subject: a model and its images; each metric samples them with the subject's seed.
    """
    figures: dict[str, float] = {}
    for metric in METRICS.values():
        if metric.sample is not None:
            sample = subject.test.few(min(metric.sample, len(subject.test)), subject.seed)
            figures |= measure(replace(subject, test=sample), [metric])
    return figures


def _check_types(model: ImageModel, test: ImageSet[Any], train: ImageSet | None) -> None:
    """Raise UserError unless the arguments of `evaluate` are a Foveal model and image sets."""
    if not isinstance(model, ImageModel):
        raise UserError(
            f"Expected a Foveal model, as foveal.load returns, but got {type(model).__name__}."
        )
    for name, data in (("test", test), ("train", train)):
        if data is not None and not isinstance(data, ImageSet):
            raise UserError(
                f"Expected an ImageSet for {name}, as foveal.load_images returns, but got "
                f"{type(data).__name__}. For a uint8 tensor use "
                "ImageSet(name, split, images, labels, classes)."
            )


def _match_labels(model: ImageModel, images: ImageSet, name: str | None) -> ImageSet:
    """Return images with labels for the model's tasks, as indices of the model's classes."""
    matched, _ = with_model_classes(images.of(model.tasks), model, name)
    _check_labels(model, matched)
    return matched


def _check_labels(model: ImageModel, data: ImageSet) -> None:
    """Raise UserError if there are no images or a label is not an index of the model's classes."""
    if len(data) == 0:
        raise UserError(f"Expected images in {data.name} ({data.split}), but there are none.")
    if not model.num_classes:
        return
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= model.num_classes:
        raise UserError(
            f"Expected labels from 0 to {model.num_classes - 1}, the model's classes, but "
            f"{data.name} ({data.split}) has labels from {low} to {high}."
        )
