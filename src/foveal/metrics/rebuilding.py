"""Reconstruction error: the difference between images and their reconstructions."""

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
    """Errors of reconstructed images, means over images."""

    rebuilding_mse: float
    rebuilding_ssim: float


def rebuilding(model: ImageModel, test: ImageSet, *, batch_size: int = 500) -> Rebuilding:
    """Return the mean squared error and the structural similarity of reconstructed images.

    Pixels are from 0 to 1; the error of a constant image with the right mean is the variance. The
    similarity is 1 for equal images (Wang et al. 2004; windows of 11x11 pixels with a Gaussian of
    standard deviation 1.5, or the largest odd side that fits smaller images).

    Args:
        model: a reconstruction model; its mode and device are left unchanged.
        test: images; labels are not used.
        batch_size: images per forward pass; bounds the memory.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    side = min(11, *test.images.shape[-2:])
    kernel = side - (side % 2 == 0)
    error = similarity = 0.0
    with evaluating(model):
        for batch in test.images.split(batch_size):
            images = as_floats(model, batch)
            rebuilt: Tensor = model(images)
            error += float((rebuilt - images).square().mean(dim=(1, 2, 3)).sum())
            total = structural_similarity_index_measure(
                rebuilt, images, data_range=1.0, kernel_size=kernel, reduction="sum"
            )
            assert isinstance(total, Tensor)  # a tuple only with other settings
            similarity += float(total)
    return Rebuilding(error / len(test), similarity / len(test))


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
            "mean squared error of the image reconstructed from the patches, pixels from 0 to 1",
            "lower",
        ),
        Column(
            "rebuilding_ssim",
            "SSIM",
            "{:.3f}",
            "structural similarity of the image and its reconstruction from the patches, 1 if "
            "equal",
            "higher",
        ),
    ),
    needs=frozenset({Ability.REBUILT}),
    about=About.PREDICTION,
)
