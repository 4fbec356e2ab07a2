"""Accuracy: the share of images whose class a model names."""

from torch import Tensor

from foveal.data import ImageSet
from foveal.metrics.looks import Looks, look_over
from foveal.models.classifier import ImageClassifier


def accuracy(
    model: ImageClassifier, test: ImageSet, *, batch_size: int = 500, looks: Looks | None = None
) -> float:
    """Return the share of images, from 0 to 1, whose greatest logit is their label's.

    Args:
        model: of any family; its mode and device stay as they are.
        test: labelled images.
        batch_size: images in one forward pass; bounds the memory.
        looks: the model's looks at `test`, where they are known already.
    """
    looks = looks or look_over(model, test.images, batch_size)
    return share_equal(looks.logits.argmax(dim=1), test.labels)


def predict_logits(model: ImageClassifier, images: Tensor, batch_size: int = 500) -> Tensor:
    """Return logits (N, classes) on the CPU for uint8 images (N, C, H, W)."""
    return look_over(model, images, batch_size).logits


def share_equal(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions (N,) that equal the labels (N,)."""
    return int((predictions == labels).sum()) / len(labels)
