"""Classification of large images; the patches' weights teach the detector to rank locations."""

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.detectors import HighResDetector, Located
from foveal.foundation.errors import UserError
from foveal.heads import HeadOutput
from foveal.images import LargeImages
from foveal.metrics.accuracy import correct
from foveal.models.focus import FocusNet
from foveal.training.objectives.losses import ranking_loss
from foveal.training.objectives.objective import Objective
from foveal.training.settings import Recipe

FACTORS = (2, 4, 8)  # downsampling factors of the coarse detector's thumbnails in training

# Weight of the coarse detector's loss. Adam compensates for it, because that detector has no other
# loss; without it, the gradient would dominate the norm by which all gradients are clipped.
COARSE = 0.01

# At chance level, the sum of ten binary cross-entropies (10 ln 2) is three times a cross-entropy
# over ten classes (ln 10).
MULTI_LABEL = 3


class Ranking(Objective):
    """The losses of all tasks, and a ranking loss for the detector, on images read in part.

    A batch consists of indices; the images stay in their files. The ranking loss compares the
    detector's scores with the weights that the head gives the patches: the head, which reads them
    at full resolution, teaches the detector, which reads a thumbnail. Keypoints are sampled by
    score, so that low-scoring cells are tried too.

    Args:
        model: a model with a `HighResDetector`.
        recipe: the recipe; `large` holds the settings of the detector's training.
        steps: optimizer steps in all epochs.
        sets: `train` and `val`, and `first` if the recipe has one.

    Raises:
        UserError: the number of first images differs from that of the others.
    """

    monitor, mode = "val_accuracy", "max"

    model: FocusNet

    def __init__(
        self,
        model: FocusNet,
        recipe: Recipe,
        steps: int,
        sets: Mapping[str, ImageSet[LargeImages]],
    ):
        super().__init__(model, recipe, steps)
        tasks = model.tasks
        self.sets = {name: images.of(tasks) for name, images in sets.items()}
        if "first" in sets and len(sets["first"]) != len(sets["train"]):
            raise UserError(
                f"Expected {len(sets['train'])} images in large.first, as in "
                f"{sets['train'].name}, but got {len(sets['first'])}."
            )
        self.keypoints = model.detector.keypoints
        by_task = [f"val_{task}" for task in tasks] if len(tasks) > 1 else []
        self.columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", *by_task)

    @property
    def detector(self) -> HighResDetector:
        """The model's detector."""
        return cast(HighResDetector, self.model.detector)

    @property
    def is_early(self) -> bool:
        """Whether this epoch is one of the first, on smaller images."""
        return "first" in self.sets and self.current_epoch < self.recipe.large.first_epochs

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, and set its number of patches."""
        super().on_train_epoch_start()
        keypoints = self.recipe.large.first_keypoints if self.is_early else 0
        self.detector.keypoints = keypoints or self.keypoints

    def on_validation_epoch_start(self) -> None:
        """Set the number of patches of the trained model."""
        self.detector.keypoints = self.keypoints

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss on the images at these indices."""
        images = self.sets["first" if self.is_early else "train"]
        located, output = self._read(images, batch[0])
        loss, accuracies = task_losses(_task_logits(output), self._labels(images, batch[0]))
        if not self.is_early and self.recipe.large.distil:
            assert located.score is not None
            assert output.task_weights is not None
            ranking = ranking_loss(located.score, output.task_weights)
            loss = loss + self.recipe.large.distil * ranking
        if self.detector.coarse is not None:
            loss = loss + COARSE * self._coarse_loss(located, index)
        self.check_loss(loss, index)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        accuracy = accuracies.mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure the loss and each task's accuracy on the images at these indices."""
        images = self.sets["val"]
        _, output = self._read(images, batch[0])
        loss, accuracies = task_losses(_task_logits(output), self._labels(images, batch[0]))
        log = partial(self.log, batch_size=len(batch[0]), sync_dist=True)
        log("val_loss", loss)
        log("val_accuracy", accuracies.mean(), prog_bar=True)
        if len(self.model.tasks) > 1:
            for task, accuracy in zip(self.model.tasks, accuracies, strict=True):
                log(f"val_{task}", accuracy)

    def _read(self, images: ImageSet[LargeImages], indices: Tensor) -> tuple[Located, HeadOutput]:
        """Return the outputs of the detector and the head for the images at indices (B,)."""
        view = self.model.view(images.images, indices.cpu())
        _, located, output = self.model.read(view, self.model.locate(view))
        return located, output

    def _labels(self, images: ImageSet[LargeImages], indices: Tensor) -> list[Tensor]:
        rows = indices.cpu()
        return [labels[rows].to(indices.device) for labels in images.tasks.values()]

    def _coarse_loss(self, located: Located, index: int) -> Tensor:
        """Return the divergence of the coarse scores from the maximum fine score of each region."""
        assert located.score_map is not None
        assert located.thumbnail is not None
        factor = FACTORS[index % len(FACTORS)]
        fine = located.score_map.detach()
        if self.detector.coarse is None or min(fine.shape[-2:]) < factor:
            return fine.new_zeros(())
        maxima = F.max_pool2d(fine[:, None], factor).flatten(1)
        scores = self.detector.coarse(F.avg_pool2d(located.thumbnail, factor)).flatten(1)
        target = maxima.softmax(dim=1)
        return F.kl_div(scores.log_softmax(dim=1), target, reduction="batchmean")


def _task_logits(output: HeadOutput) -> Tensor:
    return output.logits[:, None] if output.task_logits is None else output.task_logits


def task_losses(logits: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of the tasks' losses, and the accuracy of each (T,).

    The loss of a task is the cross-entropy. If its labels are booleans, it is the sum of the
    classes' binary cross-entropies divided by 3, which starts at about the same value; a prediction
    is then correct if it is correct for every class.

    Args:
        logits: (B, T, classes).
        labels: for each task (B,) class indices, or (B, classes) booleans.
    """
    loss, accuracies = logits.new_zeros(()), []
    for task, target in enumerate(labels):
        output = logits[:, task].float()
        if target.dtype == torch.bool:
            losses = F.binary_cross_entropy_with_logits(output, target.float(), reduction="none")
            loss = loss + losses.sum(dim=1).mean() / MULTI_LABEL
        else:
            loss = loss + F.cross_entropy(output, target)
        accuracies.append(correct(output, target).float().mean())
    return loss, torch.stack(accuracies)
