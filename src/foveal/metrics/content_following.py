"""Content following: whether predictions depend on the pixels of patches or on their positions.

A focus model classifies an image from the patches at the keypoints that its detector chooses.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.explanation import Explanation
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError
from foveal.metrics.accuracy import mean_correct
from foveal.metrics.metric import Metric
from foveal.metrics.observing import observe_all
from foveal.metrics.random_focus import logits_at
from foveal.metrics.subject import Subject
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

PAIRS = 10_000  # pairs of images
PAIRS_IN_PART = 10  # maximum pairs per image if each pair is read from a file
PAIRS_OF_CROPS = 2  # maximum pairs per image if each pair requires a pass of a backbone


class Following(NamedTuple):
    """Fractions, from 0 to 1, of pairs whose prediction follows the pixels or the keypoints."""

    content_following: float
    position_following: float


def content_following(
    model: ImageModel,
    test: ImageSet,
    pairs: int = PAIRS,
    seed: int = 0,
    *,
    batch_size: int = 500,
    observed: Explanation | None = None,
) -> Following:
    """Return how often the prediction follows the pixels, and how often the keypoints.

    For random pairs of images A and B of different classes, the model classifies the patches of B
    at the keypoints (and with the scales) of A. `content_following` is the fraction of pairs that
    are predicted as B's class, which shows that the pixels decided. `position_following` is the
    fraction predicted as A's class, which shows that the positions decided. Some pairs may be
    predicted as a third class, so the two add up to at most 1.

    Args:
        model: a focus model; its mode and device are left unchanged.
        test: labelled images of at least two classes.
        pairs: number of pairs, drawn uniformly with replacement from all pairs of two classes.
        seed: seed of the draw; the caller's random generators are left unchanged.
        batch_size: images per forward pass.
        observed: result of `observe_all` for `test`, if already computed.

    Raises:
        UserError: all images are of one class.
    """
    observed = observed or observe_all(model, test.images, batch_size)
    keypoint_sources, pixel_sources = _draw_pairs(test.labels, pairs, seed)
    logits = logits_at(model, test.images, pixel_sources, observed, keypoint_sources, batch_size)
    return Following(
        content_following=mean_correct(logits, test.labels[pixel_sources]),
        position_following=mean_correct(logits, test.labels[keypoint_sources]),
    )


def _draw_pairs(labels: Tensor, pair_count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the first and of the second image of random pairs, each (pairs,).

    The pairs are uniform over all pairs of images of different classes.
    """
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    if int(counts.max()) == len(labels):
        raise UserError("Expected images of at least 2 classes to pair, but got 1 class.")
    generator = torch.Generator().manual_seed(seed)
    other_counts = len(labels) - counts[labels]  # per image, the number of images of other classes
    first = torch.multinomial(
        other_counts.double(), pair_count, replacement=True, generator=generator
    )
    # The second image is drawn from `order`, where the images of the first image's class are one
    # block. Positions from the start of this block on are moved past its end.
    classes = labels[first]
    block_starts = counts.cumsum(0)[classes] - counts[classes]
    draws = torch.rand(pair_count, generator=generator, dtype=torch.float64) * other_counts[first]
    positions = draws.long()
    shifts = counts[classes] * (positions >= block_starts)
    return first, order[positions + shifts]


def _measure(subject: Subject) -> dict[str, float]:
    labels = subject.test.labels
    pairs = PAIRS
    if Ability.IN_PART in subject.model.abilities:
        pairs = min(pairs, PAIRS_IN_PART * len(subject.test))
    if Ability.CROPS in subject.model.abilities:
        pairs = min(pairs, PAIRS_OF_CROPS * len(subject.test))
    if labels.dtype == torch.bool or len(labels.unique()) < 2:  # no pairs of different classes
        return {}
    result = content_following(subject.model, subject.test, pairs, subject.seed, **subject.shared)
    return result._asdict()


CONTENT_FOLLOWING = Metric(
    "content_following",
    _measure,
    (
        Column(
            "content_following",
            "follows content",
            "{:.1%}",
            "image B's pixels cut at image A's keypoints: how often the prediction is B's class",
            "higher",
        ),
        Column(
            "position_following",
            "follows position",
            "{:.1%}",
            "image B's pixels cut at image A's keypoints: how often the prediction is A's class",
            "lower",
        ),
    ),
    needs=frozenset({Ability.GIVEN_KEYPOINTS}),
)
