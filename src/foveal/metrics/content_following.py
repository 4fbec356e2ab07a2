"""Content following: whether predictions depend on the patches' pixels or their positions."""

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

PAIRS = 10_000


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

    For random pairs A, B of different classes, the model classifies B's pixels at A's keypoints
    (and A's scales). `content_following` is the fraction predicted as B's class, decided by the
    pixels. `position_following` is the fraction predicted as A's class, decided by the positions.
    They add up to at most 1.

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
    positions, pixels = _pairs(test.labels, pairs, seed)
    logits = logits_at(model, test.images, pixels, observed, positions, batch_size)
    return Following(
        content_following=mean_correct(logits, test.labels[pixels]),
        position_following=mean_correct(logits, test.labels[positions]),
    )


def _pairs(labels: Tensor, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return indices (pairs,), (pairs,) of images of different classes, uniform over such pairs."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    if int(counts.max()) == len(labels):
        raise UserError("Expected images of at least 2 classes to pair, but got 1 class.")
    generator = torch.Generator().manual_seed(seed)
    others = len(labels) - counts[labels]  # per image, the number of images of other classes
    first = torch.multinomial(others.double(), pairs, replacement=True, generator=generator)
    # Sorted by class, the image's own class is one block, which is skipped.
    classes = labels[first]
    start = counts.cumsum(0)[classes] - counts[classes]
    draw = torch.rand(pairs, generator=generator, dtype=torch.float64) * others[first]
    index = draw.long()
    return first, order[index + counts[classes] * (index >= start)]


def _measure(subject: Subject) -> dict[str, float]:
    labels, pairs = subject.test.labels, PAIRS
    if Ability.IN_PART in subject.model.abilities:  # each pair is read from a file
        pairs = min(pairs, 10 * len(subject.test))
    if Ability.CROPS in subject.model.abilities:  # each pair requires a pass of a backbone
        pairs = min(pairs, 2 * len(subject.test))
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
