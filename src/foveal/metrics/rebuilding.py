"""Rebuilding: how near the rebuilt images come to the images."""

from typing import NamedTuple

from torch import Tensor

from foveal.datasets import ImageSet
from foveal.foundation.columns import Column
from foveal.metrics.metric import About, Metric
from foveal.metrics.observing import as_floats, evaluating
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


class Rebuilding(NamedTuple):
    """Errors of rebuilt images, means over images."""

    rebuilding_mse: float
    rebuilding_ssim: float


def rebuilding(model: ImageModel, test: ImageSet, *, batch_size: int = 500) -> Rebuilding:
    """Return the mean squared error and the structural similarity of rebuilt images.

    Pixels count from 0 to 1, so that the error of an image of nothing but its mean is its
    variance. The similarity is 1 for equal images (Wang et al. 2004; windows of 11x11 pixels with
    a Gaussian of 1.5, or the largest odd side that fits smaller images).

    Args:
        model: a reconstructor; its mode and device stay as they are.
        test: images; their labels are not read.
        batch_size: images in one forward pass; bounds the memory.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = min(11, *test.images.shape[-2:])
    kernel = side - (side % 2 == 0)
    error = likeness = 0.0
    with evaluating(model):
        for batch in test.images.split(batch_size):
            images = as_floats(model, batch)
            rebuilt: Tensor = model(images)
            error += float((rebuilt - images).square().mean(dim=(1, 2, 3)).sum())
            total = structural_similarity_index_measure(
                rebuilt, images, data_range=1.0, kernel_size=kernel, reduction="sum"
            )
            assert isinstance(total, Tensor)  # with other settings there are pictures too
            likeness += float(total)
    return Rebuilding(error / len(test), likeness / len(test))


def _measure(subject: Subject) -> dict[str, float]:
    return rebuilding(subject.model, subject.test, batch_size=subject.batch_size)._asdict()


REBUILDING = Metric(
    "rebuilding",
    _measure,
    (
        Column(
            "rebuilding_mse",
            "MSE",
            "{:.4f}",
            "mean squared error of the image rebuilt from the patches, pixels from 0 to 1",
            "lower",
        ),
        Column(
            "rebuilding_ssim",
            "SSIM",
            "{:.3f}",
            "structural similarity of the image and the one rebuilt from the patches, 1 if equal",
            "higher",
        ),
    ),
    needs=frozenset({Ability.REBUILT}),
    about=About.PREDICTION,
)
