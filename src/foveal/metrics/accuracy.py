"""Accuracy: the fraction of images that a model classifies correctly."""

from torch import Tensor

from foveal.columns import Column
from foveal.data import ImageSet
from foveal.metrics.looks import Looks, look_over
from foveal.metrics.metric import About, Metric
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def accuracy(
    model: ImageModel, test: ImageSet, *, batch_size: int = 500, looks: Looks | None = None
) -> float:
    """Return the fraction of images, from 0 to 1, whose largest logit is that of their label.

    Args:
        model: a classifier of any family; its mode and device stay as they are.
        test: labelled images.
        batch_size: images in one forward pass; bounds the memory.
        looks: the model's looks at `test`, where they are known already.
    """
    looks = looks or look_over(model, test.images, batch_size)
    return share_equal(looks.logits.argmax(dim=1), test.labels)


def predict_logits(model: ImageModel, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return logits (N, classes) on the CPU for uint8 images (N, C, H, W)."""
    return look_over(model, images, batch_size).logits


def share_equal(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions (N,) that equal the labels (N,)."""
    return int((predictions == labels).sum()) / len(labels)


def _measure(subject: Subject) -> dict[str, float]:
    return {"accuracy": accuracy(subject.model, subject.test, **subject.shared)}


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
            "accuracy of a model of several tasks, mean over the tasks",
            "higher",
        ),
    ),
    needs=frozenset({Ability.CLASSES}),
    about=About.PREDICTION,
)
