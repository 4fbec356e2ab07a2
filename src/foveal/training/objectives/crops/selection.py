"""Selection of crops: methods that train the detector on the features of all candidates.

A candidate is a crop that the detector may choose. A frozen backbone has computed the features of
all candidates of each image, so that a method can compare them without reading images. All
candidates of an image are ordered by scale, from coarse to fine.
"""

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
from foveal.models.crop_features import THUMBNAIL, VECTORS, crop_parts, locate_candidates
from foveal.models.focus import FocusNet
from foveal.training.batches import shuffled_batches, starts_of
from foveal.training.features import Features
from foveal.training.objectives.crops.perturbed import perturbed_top
from foveal.training.objectives.crops.settings import Crops
from foveal.training.objectives.losses import class_weights, ranking_loss
from foveal.training.settings import Recipe

BATCH_SIZE = 32  # maximum number of images per step
# Maximum learning rates of head and detector, and weight decay of both.
HEAD_LR, DETECTOR_LR, WEIGHT_DECAY = 1e-3, 3e-3, 0.1
VECTOR_STEP = 7  # every seventh vector suffices to estimate their mean and standard deviation
EXCLUDED_LOSS = 1e9  # added to the loss of candidates that must not be selected again


@dataclass(frozen=True)
class Batch:
    """Features of a batch of images of one size.

    Attributes:
        vectors: feature vectors (B, N, F) of all N candidates.
        thumbnail: features (B, C, h, w) of the images' thumbnails, which the detector reads.
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
        images: stored features of the training images, with their labels.
        recipe: the recipe; its `crops` are the settings of the selection.
    """

    model: FocusNet
    images: ImageSet[Features]
    recipe: Recipe

    @property
    def settings(self) -> Crops:
        """Settings of the selection in the recipe."""
        return self.recipe.crops

    @cached_property
    def weights(self) -> Tensor:
        """Weights (classes,) of the classes in the loss; equal unless the recipe balances them."""
        labels, balance = self.images.labels, self.recipe.training.balance
        return class_weights(labels, self.model.num_classes, balance)

    def loss(self, output: HeadOutput, labels: Tensor) -> Tensor:
        """Return the cross-entropy of a head's output for images with labels (B,)."""
        smoothing = self.recipe.training.label_smoothing
        return F.cross_entropy(output.logits, labels, self.weights, label_smoothing=smoothing)

    def batches(self, epochs: int) -> Iterator[Batch]:
        """Yield batches of all training images in random order, once per epoch.

        The view of each image, as it is or mirrored (if that is stored too), is drawn at random.
        """
        features = self.images.images
        counts = [len(part.rows) for part in features.parts]
        starts = starts_of(counts)
        for _ in range(epochs):
            for part_index, indices in shuffled_batches(counts, [BATCH_SIZE] * len(counts)):
                part = features.parts[part_index]
                rows = part.rows[indices]
                views = torch.randint(features.cut.views, indices.shape)
                yield Batch(
                    part.features[VECTORS][rows, views].float(),
                    part.features[THUMBNAIL][rows, views].float(),
                    self.images.labels[starts[part_index] + indices],
                    part.size,
                )

    def steps(self, epochs: int) -> int:
        """Return the number of batches that `batches` yields."""
        parts = self.images.images.parts
        return epochs * sum(-(-len(part.rows) // BATCH_SIZE) for part in parts)  # rounded up


class Method(Protocol):
    """A method that trains the detector to select crops."""

    def __call__(self, task: SelectionTask) -> None:
        """Train the head, and the detector if it is learned, in place."""


def learn_selection(model: FocusNet, recipe: Recipe, images: ImageSet[Features]) -> None:
    """Train the head and the detector, in place, on the features of all candidates.

    Args:
        model: a model with `Ability.CROPS`.
        recipe: the recipe; `crops` holds the method and its settings.
        images: stored features of the training images, with their labels.

    Raises:
        UserError: the method does not support this kind of head.
    """
    task = SelectionTask(model, images, recipe)
    torch.manual_seed(recipe.training.seed)
    _, head = crop_parts(model)
    with torch.no_grad():
        sample = [batch.vectors.flatten(0, 1)[::VECTOR_STEP] for batch in task.batches(epochs=1)]
        head.measure(torch.cat(sample))
        if head.additive:  # start with logits that depend only on the bias
            cast(Any, head.mixer).value.weight.zero_()
    METHODS[recipe.crops.select](task)


def _fit(
    task: SelectionTask,
    module: nn.Module,
    epochs: int,
    learning_rate: float,
    loss: Callable[[Batch], Tensor],
) -> None:
    """Train a module of the model, in place, to minimise a loss.

    Args:
        task: the data of the training.
        module: the module whose parameters are trained.
        epochs: number of epochs; 0 leaves the module unchanged.
        learning_rate: maximum learning rate.
        loss: returns the loss of a batch.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    steps = task.steps(epochs)
    if not steps or not parameters:
        return
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY)
    total_steps = steps + 1  # the schedule also takes a step after the last batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps)
    for batch in task.batches(epochs):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()
        schedule.step()


def _fit_head(task: SelectionTask) -> None:
    """Train the head to classify images from all of their candidates at once."""
    _, head = crop_parts(task.model)

    def loss(batch: Batch) -> Tensor:
        vectors = F.dropout(batch.vectors, task.settings.dropout)
        return task.loss(head.combine(vectors, _all_locations(task, batch)), batch.labels)

    _fit(task, head.mixer, task.settings.head_epochs, HEAD_LR, loss)


def _all_locations(task: SelectionTask, batch: Batch) -> Located:
    """Return the locations of all candidates of a batch."""
    return locate_candidates(task.model, batch.size, len(batch.labels))


def _fit_detector(task: SelectionTask, compute_targets: Callable[[Batch], Tensor]) -> None:
    """Train the detector so that its scores, by a softmax, give target weights of the candidates.

    The softmax is taken over the candidates of each scale, and the target weights of a scale are
    divided by their sum.

    Args:
        task: model, data and settings.
        compute_targets: returns the non-negative target weights (B, N) of all candidates.
    """
    detector, _ = crop_parts(task.model)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            targets = compute_targets(batch)
        scores_by_scale = detector.scores(batch.thumbnail, batch.size)
        total = scores_by_scale[0].new_zeros(())
        targets_by_scale = targets.split([scores.shape[1] for scores in scores_by_scale], dim=1)
        for scores, weights in zip(scores_by_scale, targets_by_scale, strict=True):
            fractions = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-9)
            total = total + F.kl_div(scores.log_softmax(dim=1), fractions, reduction="batchmean")
        return total

    _fit(task, detector.scorer, task.settings.detector_epochs, DETECTOR_LR, loss)


def distil(task: SelectionTask) -> None:
    """Train the detector to predict the weights of a head that reads all candidates."""
    _fit_head(task)
    _, head = crop_parts(task.model)

    def head_weights(batch: Batch) -> Tensor:
        weights = head.combine(batch.vectors, _all_locations(task, batch)).weights
        return cast(Tensor, weights)

    _fit_detector(task, head_weights)


def greedy(task: SelectionTask) -> None:
    """Train the detector to predict a greedy selection, which is made with the help of the labels.

    The head is first trained on all candidates. The greedy selection then adds one candidate after
    the other: the one with which the head's loss is smallest. This is cheap only for an additive
    head, whose logits are a weighted mean of one term per candidate, plus a bias.

    Raises:
        UserError: the head is not additive.
    """
    detector, head = crop_parts(task.model)
    if not head.additive:
        raise UserError("crops.select=greedy requires an additive head: set model.mix=additive.")
    _fit_head(task)
    mixer: Any = head.mixer

    def greedy_selection(batch: Batch) -> Tensor:
        vectors = (batch.vectors - head.mean) / head.std
        gate = mixer.gate(vectors)[..., 0]
        # (B, N): the weights of a softmax before they are divided by their sum.
        weight = (gate - gate.amax(dim=1, keepdim=True)).exp()
        terms = weight[..., None] * (vectors @ mixer.value.weight.T)  # (B, N, classes)
        rows = torch.arange(len(weight))
        selected = torch.zeros_like(weight)  # 1 for selected candidates
        # Sums over the selected candidates of terms and weights, whose quotient gives the logits.
        numerator = terms.new_zeros(len(terms), 1, terms.shape[2])
        denominator = weight.new_zeros(len(terms), 1)
        for _ in range(detector.keypoints):
            # (B, N, classes): the logits if each of the candidates were added.
            logits = (numerator + terms) / (denominator + weight)[..., None] + mixer.value.bias
            losses = -logits.log_softmax(dim=2)[rows, :, batch.labels]  # (B, N)
            best = (losses + EXCLUDED_LOSS * selected).argmin(dim=1)
            selected[rows, best] = 1
            numerator = numerator + terms[rows, best][:, None]
            denominator = denominator + weight[rows, best][:, None]
        return selected

    _fit_detector(task, greedy_selection)


def gumbel(task: SelectionTask) -> None:
    """Train the head and the detector together, on candidates that are sampled by score.

    Gumbel noise on the scores makes the detector sample candidates instead of choosing the best. A
    ranking loss trains it to give higher scores to candidates that have more weight in the head.
    """
    detector, head = crop_parts(task.model)
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
    """Train the head and the detector together, by the gradient of a top-k selection with noise.

    After Cordonnier et al. 2021: see `perturbed_top`. The head reads weighted means of candidates,
    of both their vectors and their locations.
    """
    detector, head = crop_parts(task.model)
    modules = nn.ModuleList([detector.scorer, head.mixer])

    def loss(batch: Batch) -> Tensor:
        scores_by_scale = detector.scores(batch.thumbnail, batch.size)
        located = _all_locations(task, batch)
        positions = torch.cat([located.xy, cast(Tensor, located.scale)[..., None]], dim=2)
        start = 0  # index of the scale's first candidate among all candidates
        selected = []
        for scores, count in zip(scores_by_scale, detector.counts, strict=True):
            stop = start + scores.shape[1]
            selection = scores.new_ones(len(scores), 1, 1)  # for a scale with a single candidate
            if scores.shape[1] > 1:
                selection = perturbed_top(scores, count)
            values = torch.cat([batch.vectors[:, start:stop], positions[:, start:stop]], dim=2)
            selected.append(selection @ values)
            start = stop
        mixed = torch.cat(selected, dim=1)  # (B, K, F + 3): vectors, x, y and scale
        vectors = F.dropout(mixed[..., :-3], task.settings.dropout)
        output = head.combine(vectors, Located(mixed[..., -3:-1], mixed[..., -1]))
        return task.loss(output, batch.labels)

    _fit(task, modules, task.settings.head_epochs, HEAD_LR, loss)


def peaks(task: SelectionTask) -> None:
    """Train only the head, on all candidates, for a detector whose scores are not learned.

    Such a detector scores candidates by standardised features. The statistics for that are measured
    first.
    """
    detector, _ = crop_parts(task.model)
    with torch.no_grad():
        for batch in task.batches(epochs=1):
            # Each pass updates the running statistics of the detector's batch normalisation.
            detector.scores(batch.thumbnail, batch.size)
    _fit_head(task)


# The methods by their names in `crops.select`.
METHODS: dict[str, Method] = {
    "distil": distil,
    "greedy": greedy,
    "gumbel": gumbel,
    "perturbed": perturbed,
    "peaks": peaks,
}
