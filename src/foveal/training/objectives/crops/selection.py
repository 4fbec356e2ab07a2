"""Selection of crops, learned on the features of all candidates before anything is tuned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.datasets import ImageSet
from foveal.detectors import Located
from foveal.foundation.errors import UserError
from foveal.heads import HeadOutput
from foveal.images.geometry import Size
from foveal.models.crop_features import THUMBNAIL, VECTORS, all_located, parts_of
from foveal.models.focus import FocusNet
from foveal.training.features import Features
from foveal.training.objectives.crops.perturbed import perturbed_top
from foveal.training.objectives.losses import class_weights, misranked
from foveal.training.settings import Crops, Recipe

BATCH = 32  # images in a step
HEAD_LR, DETECTOR_LR, DECAY = 1e-3, 3e-3, 0.1


@dataclass(frozen=True)
class Some:
    """The features of some images of one size.

    Attributes:
        vectors: (B, N, F) of all candidates.
        thumbnail: (B, C, h, w), as the detector reads it.
        labels: (B,) class indices.
        size: height and width of the images in pixels.
    """

    vectors: Tensor
    thumbnail: Tensor
    labels: Tensor
    size: Size


@dataclass(frozen=True)
class Lesson:
    """What the methods of selection learn from.

    Attributes:
        model: with `Ability.CROPS`; its backbones are frozen.
        images: the training images' features.
        recipe: with its `crops`.
    """

    model: FocusNet
    images: ImageSet[Features]
    recipe: Recipe

    @property
    def settings(self) -> Crops:
        """The recipe's settings of the selection."""
        return self.recipe.crops

    @cached_property
    def weights(self) -> Tensor:
        """The weight of each class (classes,) in the loss."""
        labels, balance = self.images.labels, self.recipe.training.balance
        return class_weights(labels, self.model.num_classes, balance)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Return the cross-entropy of a head's output."""
        smoothing = self.recipe.training.label_smoothing
        return F.cross_entropy(output.logits, labels, self.weights, label_smoothing=smoothing)

    def batches(self, epochs: int) -> Iterator[Some]:
        """Yield batches of training images in random order, over a number of epochs."""
        features = self.images.images
        views, first = features.cut.views, 0
        starts = []
        for part in features.parts:
            starts.append(first)
            first += len(part.rows)
        for _ in range(epochs):
            batches = [
                (number, rows)
                for number, part in enumerate(features.parts)
                for rows in torch.randperm(len(part.rows)).split(BATCH)
            ]
            for index in torch.randperm(len(batches)).tolist():
                number, rows = batches[index]
                part = features.parts[number]
                view = torch.randint(views, rows.shape)
                yield Some(
                    part.kept[VECTORS][part.rows[rows], view].float(),
                    part.kept[THUMBNAIL][part.rows[rows], view].float(),
                    self.images.labels[starts[number] + rows],
                    part.size,
                )

    def steps(self, epochs: int) -> int:
        """Return how many batches `batches` yields."""
        return epochs * sum(-(-len(part.rows) // BATCH) for part in self.images.images.parts)


class Method(Protocol):
    """What teaches a detector where to look."""

    def __call__(self, lesson: Lesson) -> None:
        """Train the detector, and the head where that learns along with it."""


def learn_selection(model: FocusNet, recipe: Recipe, images: ImageSet[Features]) -> None:
    """Train the head and the detector on the features of all candidates.

    Args:
        model: with `Ability.CROPS`.
        recipe: its `crops` says how.
        images: the training images.

    Raises:
        UserError: the method needs a head of another kind.
    """
    lesson = Lesson(model, images, recipe)
    torch.manual_seed(recipe.training.seed)
    _, head = parts_of(model)
    with torch.no_grad():
        some = torch.cat([some.vectors.flatten(0, 1)[::7] for some in lesson.batches(1)])
        head.measure(some)
        if head.additive:  # begin with logits that say nothing
            cast(Any, head.mixer).value.weight.zero_()
    METHODS[recipe.crops.select](lesson)


def _fit(
    lesson: Lesson, part: nn.Module, epochs: int, rate: float, loss: Callable[[Some], Tensor]
) -> None:
    """Train a part of the model for some epochs."""
    parameters = [p for p in part.parameters() if p.requires_grad]
    steps = lesson.steps(epochs)
    if not steps or not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    for some in lesson.batches(epochs):
        optimizer.zero_grad()
        loss(some).backward()
        optimizer.step()
        schedule.step()


def _fit_head(lesson: Lesson) -> None:
    """Train the head on all candidates at once."""
    _, head = parts_of(lesson.model)

    def loss(some: Some) -> Tensor:
        vectors = F.dropout(some.vectors, lesson.settings.dropout)
        return lesson.loss(head.combine(vectors, _all(lesson, some)), some.labels)

    _fit(lesson, head.mixer, lesson.settings.head_epochs, HEAD_LR, loss)


def _all(lesson: Lesson, some: Some) -> Located:
    return all_located(lesson.model, some.size, len(some.labels))


def _fit_detector(lesson: Lesson, target: Callable[[Some], Tensor]) -> None:
    """Train the detector to rank the candidates of each scale as a teacher does.

    Args:
        lesson: with the head that teaches.
        target: of some images, weights (B, N) of all candidates, at least 0.
    """
    detector, _ = parts_of(lesson.model)

    def loss(some: Some) -> Tensor:
        with torch.no_grad():
            wanted = target(some)
        scores = detector.scores(some.thumbnail, some.size)
        total = scores[0].new_zeros(())
        for own, goal in zip(scores, wanted.split([s.shape[1] for s in scores], 1), strict=True):
            fractions = goal / goal.sum(dim=1, keepdim=True).clamp_min(1e-9)
            total = total + F.kl_div(own.log_softmax(dim=1), fractions, reduction="batchmean")
        return total

    _fit(lesson, detector.scorer, lesson.settings.detector_epochs, DETECTOR_LR, loss)


def distil(lesson: Lesson) -> None:
    """Teach the detector the weights of a head that reads all candidates."""
    _fit_head(lesson)
    _, head = parts_of(lesson.model)

    def target(some: Some) -> Tensor:
        weights = head.combine(some.vectors, _all(lesson, some)).weights
        return cast(Tensor, weights)

    _fit_detector(lesson, target)


def greedy(lesson: Lesson) -> None:
    """Teach the detector the candidates that decrease the head's loss most, one after the other.

    Raises:
        UserError: the head is not additive.
    """
    detector, head = parts_of(lesson.model)
    if not head.additive:
        raise UserError("crops.select: greedy needs a head with mix: additive.")
    _fit_head(lesson)
    mixer: Any = head.mixer

    def target(some: Some) -> Tensor:
        seen = (some.vectors - head.mean) / head.std
        gate = mixer.gate(seen)[..., 0]
        weight = (gate - gate.amax(dim=1, keepdim=True)).exp()  # (B, N)
        terms = weight[..., None] * (seen @ mixer.value.weight.T)  # (B, N, classes)
        taken, rows = torch.zeros_like(weight), torch.arange(len(weight))
        above, below = (
            terms.new_zeros(len(terms), 1, terms.shape[2]),
            weight.new_zeros(len(terms), 1),
        )
        for _ in range(detector.keypoints):
            logits = (above + terms) / (below + weight)[..., None] + mixer.value.bias
            losses = -logits.log_softmax(dim=2)[rows, :, some.labels]  # (B, N)
            best = (losses + 1e9 * taken).argmin(dim=1)
            taken[rows, best] = 1
            above = above + terms[rows, best][:, None]
            below = below + weight[rows, best][:, None]
        return taken

    _fit_detector(lesson, target)


def gumbel(lesson: Lesson) -> None:
    """Draw candidates by the detector's scores; the weights that the head gives them teach it."""
    detector, head = parts_of(lesson.model)
    both = nn.ModuleList([detector.scorer, head.mixer])

    def loss(some: Some) -> Tensor:
        chosen = detector.choose(some.thumbnail, some.size)
        located = detector.located(chosen, some.size)
        indices = detector.among_all(chosen, some.size)
        vectors = some.vectors.gather(1, indices[..., None].expand(-1, -1, some.vectors.shape[2]))
        output = head.combine(F.dropout(vectors, lesson.settings.dropout), located)
        weights = cast(Tensor, output.weights)
        return lesson.loss(output, some.labels) + misranked(chosen.score, weights[:, None])

    _fit(lesson, both, lesson.settings.head_epochs, HEAD_LR, loss)


def perturbed(lesson: Lesson) -> None:
    """Train both by the gradient of a perturbed top-k (Cordonnier et al. 2021)."""
    detector, head = parts_of(lesson.model)
    both = nn.ModuleList([detector.scorer, head.mixer])

    def loss(some: Some) -> Tensor:
        scores = detector.scores(some.thumbnail, some.size)
        places, first, read = all_located(lesson.model, some.size, len(some.labels)), 0, []
        where = torch.cat([places.xy, cast(Tensor, places.scale)[..., None]], dim=2)
        for own, count in zip(scores, detector.counts, strict=True):
            last = first + own.shape[1]
            soft = perturbed_top(own, count) if own.shape[1] > 1 else own.new_ones(len(own), 1, 1)
            both_of = torch.cat([some.vectors[:, first:last], where[:, first:last]], dim=2)
            read.append(soft @ both_of)
            first = last
        mixed = torch.cat(read, dim=1)
        vectors = F.dropout(mixed[..., :-3], lesson.settings.dropout)
        output = head.combine(vectors, Located(mixed[..., -3:-1], mixed[..., -1]))
        return lesson.loss(output, some.labels)

    _fit(lesson, both, lesson.settings.head_epochs, HEAD_LR, loss)


def peaks(lesson: Lesson) -> None:
    """Fit the head alone, for a detector of which nothing but a standardisation is learned."""
    detector, _ = parts_of(lesson.model)
    with torch.no_grad():
        for some in lesson.batches(1):
            detector.scores(some.thumbnail, some.size)
    _fit_head(lesson)


METHODS: dict[str, Method] = {
    "distil": distil,
    "greedy": greedy,
    "gumbel": gumbel,
    "perturbed": perturbed,
    "peaks": peaks,
}
