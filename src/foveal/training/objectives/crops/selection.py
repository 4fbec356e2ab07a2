"""Selection of crops: methods that train the detector on the features of all candidates."""

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
from foveal.models.crop_features import THUMBNAIL, VECTORS, locate_candidates, parts_of
from foveal.models.focus import FocusNet
from foveal.training.batches import shuffled_batches, starts_of
from foveal.training.features import Features
from foveal.training.objectives.crops.perturbed import perturbed_top
from foveal.training.objectives.crops.settings import Crops
from foveal.training.objectives.losses import class_weights, ranking_loss
from foveal.training.settings import Recipe

BATCH = 32  # images per step
HEAD_LR, DETECTOR_LR, DECAY = 1e-3, 3e-3, 0.1


@dataclass(frozen=True)
class Batch:
    """Features of a batch of images of one size.

    Attributes:
        vectors: feature vectors (B, N, F) of all candidates.
        thumbnail: features (B, C, h, w) that the detector reads.
        labels: (B,) class indices.
        size: height and width of the images in pixels.
    """

    vectors: Tensor
    thumbnail: Tensor
    labels: Tensor
    size: Size


@dataclass(frozen=True)
class SelectionTask:
    """Model, data and settings of a selection method.

    Attributes:
        model: a model with `Ability.CROPS`, whose backbones are frozen.
        images: features of the training images.
        recipe: the recipe; its `crops` are the settings of the selection.
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
        """Weights (classes,) of the classes in the loss."""
        labels, balance = self.images.labels, self.recipe.training.balance
        return class_weights(labels, self.model.num_classes, balance)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Return the cross-entropy of a head's output."""
        smoothing = self.recipe.training.label_smoothing
        return F.cross_entropy(output.logits, labels, self.weights, label_smoothing=smoothing)

    def batches(self, epochs: int) -> Iterator[Batch]:
        """Yield batches of training images in random order, each image in a random view."""
        features = self.images.images
        counts = [len(part.rows) for part in features.parts]
        starts = starts_of(counts)
        for _ in range(epochs):
            for index, indices in shuffled_batches(counts, [BATCH] * len(counts)):
                part = features.parts[index]
                rows, views = part.rows[indices], torch.randint(features.cut.views, indices.shape)
                yield Batch(
                    part.features[VECTORS][rows, views].float(),
                    part.features[THUMBNAIL][rows, views].float(),
                    self.images.labels[starts[index] + indices],
                    part.size,
                )

    def steps(self, epochs: int) -> int:
        """Return the number of batches that `batches` yields."""
        return epochs * sum(-(-len(part.rows) // BATCH) for part in self.images.images.parts)


class Method(Protocol):
    """A method that trains the detector to select crops."""

    def __call__(self, task: SelectionTask) -> None:
        """Train the detector, and the head if it learns jointly."""


def learn_selection(model: FocusNet, recipe: Recipe, images: ImageSet[Features]) -> None:
    """Train the head and the detector on the features of all candidates.

    Args:
        model: a model with `Ability.CROPS`.
        recipe: the recipe; `crops` holds the method and its settings.
        images: features of the training images.

    Raises:
        UserError: the method does not support this kind of head.
    """
    task = SelectionTask(model, images, recipe)
    torch.manual_seed(recipe.training.seed)
    _, head = parts_of(model)
    with torch.no_grad():
        vectors = torch.cat([batch.vectors.flatten(0, 1)[::7] for batch in task.batches(1)])
        head.measure(vectors)
        if head.additive:  # start with logits that depend only on the bias
            cast(Any, head.mixer).value.weight.zero_()
    METHODS[recipe.crops.select](task)


def _fit(
    task: SelectionTask,
    part: nn.Module,
    epochs: int,
    rate: float,
    loss: Callable[[Batch], Tensor],
) -> None:
    """Train a part of the model for some epochs."""
    parameters = [p for p in part.parameters() if p.requires_grad]
    steps = task.steps(epochs)
    if not steps or not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1)
    for batch in task.batches(epochs):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
        schedule.step()


def _fit_head(task: SelectionTask) -> None:
    """Train the head on all candidates together."""
    _, head = parts_of(task.model)

    def loss(batch: Batch) -> Tensor:
        vectors = F.dropout(batch.vectors, task.settings.dropout)
        return task.loss(head.combine(vectors, _all_locations(task, batch)), batch.labels)

    _fit(task, head.mixer, task.settings.head_epochs, HEAD_LR, loss)


def _all_locations(task: SelectionTask, batch: Batch) -> Located:
    """Return the locations of all candidates of a batch."""
    return locate_candidates(task.model, batch.size, len(batch.labels))


def _fit_detector(task: SelectionTask, target: Callable[[Batch], Tensor]) -> None:
    """Train the detector to rank the candidates of each scale as a teacher does.

    Args:
        task: model, data and settings.
        target: returns non-negative weights (B, N) of all candidates in a batch.
    """
    detector, _ = parts_of(task.model)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            weights = target(batch)
        scores = detector.scores(batch.thumbnail, batch.size)
        total = scores[0].new_zeros(())
        parts = weights.split([s.shape[1] for s in scores], 1)
        for score, weight in zip(scores, parts, strict=True):  # per scale
            fractions = weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-9)
            total = total + F.kl_div(score.log_softmax(dim=1), fractions, reduction="batchmean")
        return total

    _fit(task, detector.scorer, task.settings.detector_epochs, DETECTOR_LR, loss)


def distil(task: SelectionTask) -> None:
    """Train the detector to predict the weights of a head that reads all candidates."""
    _fit_head(task)
    _, head = parts_of(task.model)

    def target(batch: Batch) -> Tensor:
        weights = head.combine(batch.vectors, _all_locations(task, batch)).weights
        return cast(Tensor, weights)

    _fit_detector(task, target)


def greedy(task: SelectionTask) -> None:
    """Train the detector to predict a greedy selection of candidates that reduce the head's loss.

    Raises:
        UserError: the head is not additive.
    """
    detector, head = parts_of(task.model)
    if not head.additive:
        raise UserError("crops.select=greedy requires an additive head: set model.mix=additive.")
    _fit_head(task)
    mixer: Any = head.mixer

    def target(batch: Batch) -> Tensor:
        vectors = (batch.vectors - head.mean) / head.std
        gate = mixer.gate(vectors)[..., 0]
        weight = (gate - gate.amax(dim=1, keepdim=True)).exp()  # (B, N)
        terms = weight[..., None] * (vectors @ mixer.value.weight.T)  # (B, N, classes)
        selected, rows = torch.zeros_like(weight), torch.arange(len(weight))
        numerator, denominator = (
            terms.new_zeros(len(terms), 1, terms.shape[2]),
            weight.new_zeros(len(terms), 1),
        )
        for _ in range(detector.keypoints):
            logits = (numerator + terms) / (denominator + weight)[..., None] + mixer.value.bias
            losses = -logits.log_softmax(dim=2)[rows, :, batch.labels]  # (B, N)
            best = (losses + 1e9 * selected).argmin(dim=1)
            selected[rows, best] = 1
            numerator = numerator + terms[rows, best][:, None]
            denominator = denominator + weight[rows, best][:, None]
        return selected

    _fit_detector(task, target)


def gumbel(task: SelectionTask) -> None:
    """Train head and detector on candidates sampled by score; the head's weights are targets."""
    detector, head = parts_of(task.model)
    modules = nn.ModuleList([detector.scorer, head.mixer])

    def loss(batch: Batch) -> Tensor:
        chosen = detector.choose(batch.thumbnail, batch.size)
        located = detector.located(chosen, batch.size)
        indices = detector.global_indices(chosen, batch.size)
        width = batch.vectors.shape[2]
        vectors = batch.vectors.gather(1, indices[..., None].expand(-1, -1, width))
        output = head.combine(F.dropout(vectors, task.settings.dropout), located)
        weights = cast(Tensor, output.weights)
        return task.loss(output, batch.labels) + ranking_loss(chosen.score, weights[:, None])

    _fit(task, modules, task.settings.head_epochs, HEAD_LR, loss)


def perturbed(task: SelectionTask) -> None:
    """Train head and detector by the gradient of a perturbed top-k (Cordonnier et al. 2021)."""
    detector, head = parts_of(task.model)
    modules = nn.ModuleList([detector.scorer, head.mixer])

    def loss(batch: Batch) -> Tensor:
        scores = detector.scores(batch.thumbnail, batch.size)
        located, first, parts = _all_locations(task, batch), 0, []
        positions = torch.cat([located.xy, cast(Tensor, located.scale)[..., None]], dim=2)
        for score, count in zip(scores, detector.counts, strict=True):  # per scale
            last, single = first + score.shape[1], score.new_ones(len(score), 1, 1)
            selection = perturbed_top(score, count) if score.shape[1] > 1 else single
            values = torch.cat([batch.vectors[:, first:last], positions[:, first:last]], dim=2)
            parts.append(selection @ values)
            first = last
        mixed = torch.cat(parts, dim=1)  # (B, K, F + 3): vectors, x, y and scale
        vectors = F.dropout(mixed[..., :-3], task.settings.dropout)
        output = head.combine(vectors, Located(mixed[..., -3:-1], mixed[..., -1]))
        return task.loss(output, batch.labels)

    _fit(task, modules, task.settings.head_epochs, HEAD_LR, loss)


def peaks(task: SelectionTask) -> None:
    """Train only the head; the detector learns nothing but a standardisation."""
    detector, _ = parts_of(task.model)
    with torch.no_grad():
        for batch in task.batches(1):
            detector.scores(batch.thumbnail, batch.size)
    _fit_head(task)


METHODS: dict[str, Method] = {
    "distil": distil,
    "greedy": greedy,
    "gumbel": gumbel,
    "perturbed": perturbed,
    "peaks": peaks,
}
