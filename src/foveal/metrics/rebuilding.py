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

MAX_WINDOW_PX = 11  # side of the windows of the structural similarity


class Rebuilding(NamedTuple):
    """Errors of reconstructed images, as means over images."""

    rebuilding_mse: float
    rebuilding_ssim: float


def rebuilding(model: ImageModel, test: ImageSet, *, batch_size: int = 500) -> Rebuilding:
    """Return the mean squared error and the structural similarity of reconstructed images.

    Pixel values are from 0 to 1. A reconstruction that is constant at the mean of the image has an
    error equal to the variance of its pixels. The similarity is 1 for equal images (Wang et al.
    2004). It is computed in windows of 11x11 pixels with a Gaussian of standard deviation 1.5; for
    smaller images, the side of the window is the largest odd number of pixels that fits.

    Args:
        model: a reconstruction model; its mode and device are left unchanged.
        test: images; labels are not used.
        batch_size: images per forward pass; bounds the memory.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    max_window_px = min(MAX_WINDOW_PX, *test.images.shape[-2:])
    window_px = max_window_px - (max_window_px % 2 == 0)  # odd
    error_sum = similarity_sum = 0.0
    with evaluating(model):
        for batch in test.images.split(batch_size):
            images = as_floats(model, batch)
            rebuilt: Tensor = model(images)
            error_sum += float((rebuilt - images).square().mean(dim=(1, 2, 3)).sum())
            batch_similarity = structural_similarity_index_measure(
                rebuilt, images, data_range=1.0, kernel_size=window_px, reduction="sum"
            )
            assert isinstance(batch_similarity, Tensor)  # a tuple only with other settings
            similarity_sum += float(batch_similarity)
    return Rebuilding(error_sum / len(test), similarity_sum / len(test))


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
