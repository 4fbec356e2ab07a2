"""Random focus: accuracy with another image's keypoints.

A focus model classifies an image from the patches at the keypoints that its detector chooses.
"""

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

    If it is as high as the accuracy with the original keypoints, the choice of keypoints does not
    matter. The keypoints (and scales) are permuted such that no image keeps its own.

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
    indices = torch.arange(len(test))
    others = derangement(len(test), seed)
    logits = logits_at(model, test.images, indices, observed, others, batch_size)
    return mean_correct(logits, test.labels)


def logits_at(
    model: ImageModel,
    images: Tensor | Photos | LargeImages,
    pixel_sources: Tensor,
    observed: Explanation,
    keypoint_sources: Tensor,
    batch_size: int,
) -> Tensor:
    """Return the logits (M, classes) of some images' pixels at other images' keypoints.

    Args:
        model: a focus model.
        images: (N, C, H, W), uint8, photographs, or large images.
        pixel_sources: (M,) indices of the images whose pixels are used.
        observed: result of `observe_all` for `images`.
        keypoint_sources: (M,) indices of the images whose keypoints and scales are used.
        batch_size: images per forward pass.
    """
    assert observed.keypoints is not None
    device = model.mean.device
    batch_logits, batch_rows = [], []
    with evaluating(model):
        for part, part_indices, rows in _batches_of_one_size(images, pixel_sources, batch_size):
            sources = keypoint_sources[rows]
            scales = None if observed.scales is None else observed.scales[sources].to(device)
            keypoints = observed.keypoints[sources].to(device)
            decision = model.decide(model.view(part, part_indices), Located(keypoints, scales))
            batch_logits.append(decision.logits.cpu())
            batch_rows.append(rows)
    logits = torch.cat(batch_logits)
    # Photographs are grouped by size, so their logits are put back in the order of the sources.
    return torch.empty_like(logits).index_copy_(0, torch.cat(batch_rows), logits)


def _batches_of_one_size(
    images: Tensor | Photos | LargeImages, indices: Tensor, batch_size: int
) -> Iterator[tuple[Tensor | LargeImages, Tensor, Tensor]]:
    """Yield batches of images of one size, as images, indices and rows.

    The batch is the images at the indices (B,) into the images that are yielded. The rows (B,) are
    the positions in the argument `indices` that the batch comes from.
    """
    if not isinstance(images, Photos):
        for rows in torch.arange(len(indices)).split(batch_size):
            yield images, indices[rows], rows
        return
    start = 0
    for part in images.parts:
        part_rows = ((indices >= start) & (indices < start + len(part))).nonzero()[:, 0]
        limit = max(1, min(batch_size, PIXELS // (part.shape[-2] * part.shape[-1])))
        for rows in part_rows.split(limit) if len(part_rows) else ():
            yield part, indices[rows] - start, rows
        start += len(part)


def derangement(count: int, seed: int) -> Tensor:
    """Return for each of `count` images the index of another image, in one random cycle.

    Raises:
        UserError: there is only one image.
    """
    if count < 2:
        raise UserError(f"Expected at least 2 images to swap keypoints between, but got {count}.")
    cycle = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    others = torch.empty_like(cycle)
    others[cycle] = cycle.roll(-1)
    return others


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
