"""Accuracy: the fraction of images that a model classifies correctly."""

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.metrics.metric import About, Metric
from foveal.metrics.observing import observe_all
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def accuracy(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, observed: Explanation | None = None
) -> float:
    """Return the fraction of images, from 0 to 1, that are classified correctly.

    An image with one class is classified correctly if the label has the largest logit. An image
    with any number of classes is classified correctly if exactly the logits of its classes are
    above 0.

    Args:
        model: a classifier of any family; its mode and device are left unchanged.
        test: labelled images.
        batch_size: images per forward pass; bounds the memory.
        observed: result of `observe_all` for `test`, if already computed.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    return mean_correct(observed.logits, test.labels)


def predict_logits(model: ImageModel, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return logits (N, classes) on the CPU for uint8 images (N, C, H, W)."""
    return observe_all(model, images, batch_size).logits


def task_accuracies(observed: Explanation, test: ImageSet[object]) -> dict[str, float]:
    """Return the accuracy of each task, by the name of the task.

    Args:
        observed: result of `observe_all` for `test`.
        test: images with labels for all tasks of the model, in the order of the model's tasks.
    """
    logits = observed.logits[:, None] if observed.task_logits is None else observed.task_logits
    return {
        task: mean_correct(logits[:, index], labels)
        for index, (task, labels) in enumerate(test.tasks.items())
    }


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each row of logits (B, classes) is correct, as booleans (B,).

    Args:
        logits: logits of one task.
        labels: (B,) class indices; or (B, classes) booleans, all of which must be predicted.
    """
    if labels.dtype == torch.bool:
        return ((logits > 0) == labels).all(dim=1)
    return logits.argmax(dim=1) == labels


def mean_correct(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of rows of logits (N, classes) that are correct, as in `correct`."""
    return int(correct(logits, labels).sum()) / len(labels)


def _measure(subject: Subject) -> dict[str, float]:
    figures = {"accuracy": accuracy(subject.model, subject.test, **subject.shared)}
    if len(subject.model.tasks) > 1:
        by_task = task_accuracies(subject.observed, subject.test)
        figures |= {f"accuracy_{task}": value for task, value in by_task.items()}
        figures["accuracy_mean"] = sum(by_task.values()) / len(by_task)
    return figures


ACCURACY = Metric(
    "accuracy",
    _measure,
    (
        Column(
            "accuracy",
            "accuracy",
            "{:.2%}",
            "fraction of test images that are classified correctly",
            "higher",
        ),
        Column(
            "accuracy_mean",
            "mean accuracy",
            "{:.2%}",
            "mean accuracy over the tasks of a model with several tasks",
            "higher",
        ),
    ),
    needs=frozenset({Ability.CLASSES}),
    about=About.PREDICTION,
)
