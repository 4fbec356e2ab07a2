"""Random focus: accuracy with another image's keypoints."""

from collections.abc import Iterator

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.detectors import Located
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError
from foveal.images import LargeImages
from foveal.images.photos import PIXELS, Photos
from foveal.metrics.accuracy import mean_correct
from foveal.metrics.metric import Metric
from foveal.metrics.observing import evaluating, observe_all
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel


def random_focus_accuracy(
    model: ImageModel,
    test: ImageSet,
    seed: int = 0,
    *,
    batch_size: int = 500,
    observed: Explanation | None = None,
) -> float:
    """Return the accuracy with each image's keypoints replaced by those of another image.

    If it is as high as the accuracy, the choice of keypoints does not matter. The keypoints (and
    scales) are permuted such that no image keeps its own.

    Args:
        model: a focus model; its mode and device are left unchanged.
        test: at least two labelled images.
        seed: seed of the permutation; the caller's random generators are left unchanged.
        batch_size: images per forward pass.
        observed: result of `observe_all` for `test`, if already computed.

    Raises:
        UserError: there is only one image.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    pixels = torch.arange(len(test))
    others = derangement(len(test), seed)
    logits = logits_at(model, test.images, pixels, observed, others, batch_size)
    return mean_correct(logits, test.labels)


def logits_at(
    model: ImageModel,
    images: Tensor | Photos | LargeImages,
    pixels: Tensor,
    observed: Explanation,
    donors: Tensor,
    batch_size: int,
) -> Tensor:
    """Return the logits (M, classes) of some images' pixels at other images' keypoints.

    Args:
        model: a focus model.
        images: (N, C, H, W), uint8, photographs, or large images.
        pixels: (M,) indices of the images whose pixels are used.
        observed: result of `observe_all` for `images`.
        donors: (M,) indices of the images whose keypoints and scales are used.
        batch_size: images per forward pass.
    """
    assert observed.keypoints is not None
    device, results, order = model.mean.device, [], []
    with evaluating(model):
        for part, indices, rows in _batches_of_one_size(images, pixels, batch_size):
            sources = donors[rows]
            scales = None if observed.scales is None else observed.scales[sources].to(device)
            keypoints = observed.keypoints[sources].to(device)
            decision = model.decide(model.view(part, indices), Located(keypoints, scales))
            results.append(decision.logits.cpu())
            order.append(rows)
    logits = torch.cat(results)
    return torch.empty_like(logits).index_copy_(0, torch.cat(order), logits)


def _batches_of_one_size(
    images: Tensor | Photos | LargeImages, pixels: Tensor, batch_size: int
) -> Iterator[tuple[Tensor | LargeImages, Tensor, Tensor]]:
    """Yield batches: images of one size, the indices (B,) to read, and their rows of `pixels`."""
    if not isinstance(images, Photos):
        for rows in torch.arange(len(pixels)).split(batch_size):
            yield images, pixels[rows], rows
        return
    first = 0
    for part in images.parts:
        part_rows = ((pixels >= first) & (pixels < first + len(part))).nonzero()[:, 0]
        limit = max(1, min(batch_size, PIXELS // (part.shape[-2] * part.shape[-1])))
        for rows in part_rows.split(limit) if len(part_rows) else ():
            yield part, pixels[rows] - first, rows
        first += len(part)


def derangement(count: int, seed: int) -> Tensor:
    """Return a random cyclic permutation: the index of another image for each of `count` images."""
    if count < 2:
        raise UserError(f"Expected at least 2 images to swap keypoints between, but got {count}.")
    cycle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(cycle)
    other[cycle] = cycle.roll(-1)
    return other


def _measure(subject: Subject) -> dict[str, float]:
    value = random_focus_accuracy(subject.model, subject.test, subject.seed, **subject.shared)
    return {"random_focus_accuracy": value}


RANDOM_FOCUS = Metric(
    "random_focus_accuracy",
    _measure,
    (
        Column(
            "random_focus_accuracy",
            "random focus",
            "{:.1%}",
            "accuracy with each image's keypoints replaced by those of another image",
            "for comparison",
        ),
    ),
    needs=frozenset({Ability.GIVEN_KEYPOINTS}),
)
