"""Ranking: training on large images, where the head teaches the detector to rank patches.

Large images are read in part: a detector reads a thumbnail, and the head only the patches that the
detector chooses. An image may have labels of several tasks.
"""

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

# Weight of the coarse detector's loss. It is small, because otherwise this loss would dominate the
# norm by which all gradients are clipped. The coarse detector still learns at full speed: it has no
# other loss, and Adam's steps do not depend on the scale of a gradient.
COARSE_WEIGHT = 0.01

# Divisor of the loss of a task whose images may have several classes. For ten classes, it makes the
# loss at chance level that of a task with one class per image: 10 ln 2 is about 3 times ln 10.
MULTI_LABEL_DIVISOR = 3


class Ranking(Objective):
    """Minimises the losses of all tasks, and a ranking loss of the detector's scores.

    A batch consists of the indices of images, because large images stay in their files. The ranking
    loss compares the detector's scores with the weights that the head gives the patches. In this
    way the head, which reads patches at full resolution, teaches the detector, which reads only a
    thumbnail. In training, keypoints are sampled by score, so that cells of the thumbnail with a
    low score are tried too.

    Args:
        model: a model with a `HighResDetector`.
        recipe: the recipe; `large` holds the settings of the detector's training.
        steps: optimizer steps in all epochs.
        sets: the images of `train` and `val`. If the recipe has `large.first`, also `first`, the
            smaller images of the first epochs.

    Raises:
        UserError: `first` and `train` have different numbers of images.
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
        self.keypoint_count = model.detector.keypoints
        task_columns = [f"val_{task}" for task in tasks] if len(tasks) > 1 else []
        self.columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", *task_columns)

    @property
    def detector(self) -> HighResDetector:
        """The model's detector."""
        return cast(HighResDetector, self.model.detector)

    @property
    def is_early(self) -> bool:
        """Whether this epoch is one of the first, which use smaller images."""
        return "first" in self.sets and self.current_epoch < self.recipe.large.first_epochs

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, and set its number of patches per image."""
        super().on_train_epoch_start()
        early_count = self.recipe.large.first_keypoints if self.is_early else 0
        self.detector.keypoints = early_count or self.keypoint_count

    def on_validation_epoch_start(self) -> None:
        """Validate with the number of patches of the trained model, even after an early epoch."""
        self.detector.keypoints = self.keypoint_count

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of a batch of image indices."""
        indices, _ = batch
        images = self.sets["first" if self.is_early else "train"]
        located, output = self._read(images, indices)
        loss, accuracies = task_losses(_task_logits(output), self._labels(images, indices))
        if not self.is_early and self.recipe.large.distil:
            assert located.score is not None
            assert output.task_weights is not None
            ranking = ranking_loss(located.score, output.task_weights)
            loss = loss + self.recipe.large.distil * ranking
        if self.detector.coarse is not None:
            loss = loss + COARSE_WEIGHT * self._coarse_loss(located, index)
        self.check_loss(loss, index)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        accuracy = accuracies.mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure the loss and the accuracy of each task on a batch of image indices."""
        indices, _ = batch
        images = self.sets["val"]
        _, output = self._read(images, indices)
        loss, accuracies = task_losses(_task_logits(output), self._labels(images, indices))
        log = partial(self.log, batch_size=len(indices), sync_dist=True)
        log("val_loss", loss)
        log("val_accuracy", accuracies.mean(), prog_bar=True)
        if len(self.model.tasks) > 1:
            for task, accuracy in zip(self.model.tasks, accuracies, strict=True):
                log(f"val_{task}", accuracy)

    def _read(self, images: ImageSet[LargeImages], indices: Tensor) -> tuple[Located, HeadOutput]:
        """Return the outputs of the detector and the head for the images at `indices` (B,)."""
        view = self.model.view(images.images, indices.cpu())
        _, located, output = self.model.read(view, self.model.locate(view))
        return located, output

    def _labels(self, images: ImageSet[LargeImages], indices: Tensor) -> list[Tensor]:
        """Return the labels of each task for the images at `indices` (B,), on their device."""
        rows = indices.cpu()
        return [labels[rows].to(indices.device) for labels in images.tasks.values()]

    def _coarse_loss(self, located: Located, index: int) -> Tensor:
        """Return the loss of the coarse detector, or 0 if there is none or the image is too small.

        The coarse detector scores regions of the image on a smaller thumbnail. Its scores should
        predict the maximum of the fine scores in each region. The loss is the Kullback-Leibler
        divergence of their softmax. `index` determines how much smaller the thumbnail is.
        """
        assert located.score_map is not None
        assert located.thumbnail is not None
        factor = FACTORS[index % len(FACTORS)]
        fine_scores = located.score_map.detach()
        if self.detector.coarse is None or min(fine_scores.shape[-2:]) < factor:
            return fine_scores.new_zeros(())
        maxima = F.max_pool2d(fine_scores[:, None], factor).flatten(1)
        coarse_scores = self.detector.coarse(F.avg_pool2d(located.thumbnail, factor)).flatten(1)
        target = maxima.softmax(dim=1)
        return F.kl_div(coarse_scores.log_softmax(dim=1), target, reduction="batchmean")


def _task_logits(output: HeadOutput) -> Tensor:
    """Return the logits (B, T, classes) of all tasks, of which the main one is the first."""
    return output.logits[:, None] if output.task_logits is None else output.task_logits


def task_losses(logits: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of the tasks' losses, and the accuracies (T,) of the tasks.

    If an image has one class, the loss of a task is the cross-entropy. If an image may have several
    classes, its labels are booleans, and the loss is the sum of the classes' binary cross-entropies
    divided by `MULTI_LABEL_DIVISOR`; a prediction is then correct if it is so for every class.

    Args:
        logits: (B, T, classes).
        labels: for each task (B,) class indices, or (B, classes) booleans.
    """
    loss = logits.new_zeros(())
    accuracies = []
    for task, target in enumerate(labels):
        task_logits = logits[:, task].float()
        if target.dtype == torch.bool:
            losses = F.binary_cross_entropy_with_logits(
                task_logits, target.float(), reduction="none"
            )
            loss = loss + losses.sum(dim=1).mean() / MULTI_LABEL_DIVISOR
        else:
            loss = loss + F.cross_entropy(task_logits, target)
        accuracies.append(correct(task_logits, target).float().mean())
    return loss, torch.stack(accuracies)
