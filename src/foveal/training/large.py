"""Training on large images: patches where the detector draws them, and the detector by those."""

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
from foveal.training.losses import misranked
from foveal.training.module import RecipeModule
from foveal.training.settings import Recipe

FACTORS = (2, 4, 8)  # by which the coarse detector's thumbnails are coarser in training

# Weight of the coarse detector's loss. Nothing else trains that detector, and Adam makes up for the
# weight; but its gradient is large, and must not use up what clipping leaves for the others.
COARSE = 0.01


class LargeModule(RecipeModule):
    """The losses of all tasks on batches of indices; the images themselves stay where they are.

    To the losses of the tasks is added how far the detector's scores are from the patches'
    weights, over the patches that were cut: the head that reads them at full resolution teaches
    the detector that reads the thumbnail. The detector draws its keypoints at random, by their
    scores, so that it also learns of cells that it scores low.

    Args:
        model: with a `HighResDetector`.
        recipe: its `large` has the settings.
        steps: in all epochs.
        sets: `train` and `val`, and `first` where the recipe has one.

    Raises:
        UserError: the first images are not as many as the others.
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
                f"Expected {len(sets['train'])} images in large.first, as there are in "
                f"{sets['train'].name}, but got {len(sets['first'])}."
            )
        self.keypoints = model.detector.keypoints
        several = [f"val_{task}" for task in tasks] if len(tasks) > 1 else []
        self.columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", *several)

    @property
    def detector(self) -> HighResDetector:
        """The model's detector."""
        return cast(HighResDetector, self.model.detector)

    @property
    def early(self) -> bool:
        """Whether this epoch is one of the first, on smaller images."""
        return "first" in self.sets and self.current_epoch < self.recipe.large.first_epochs

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, and cut as many patches as it is to have."""
        super().on_train_epoch_start()
        early = self.recipe.large.first_keypoints if self.early else 0
        self.detector.keypoints = early or self.keypoints

    def on_validation_epoch_start(self) -> None:
        """Cut all patches."""
        self.detector.keypoints = self.keypoints

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss on the images at these indices."""
        images = self.sets["first" if self.early else "train"]
        located, output = self._read(images, batch[0])
        loss, right = task_losses(_task_logits(output), self._labels(images, batch[0]))
        if not self.early and self.recipe.large.distil:
            assert located.score is not None
            assert output.task_weights is not None
            ranking = misranked(located.score, output.task_weights)
            loss = loss + self.recipe.large.distil * ranking
        if self.detector.coarse is not None:
            loss = loss + COARSE * self._coarse_loss(located, index)
        self.check_loss(loss, index)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        accuracy = right.mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure the loss and every task's accuracy on the images at these indices."""
        images = self.sets["val"]
        _, output = self._read(images, batch[0])
        loss, right = task_losses(_task_logits(output), self._labels(images, batch[0]))
        log = partial(self.log, batch_size=len(batch[0]), sync_dist=True)
        log("val_loss", loss)
        log("val_accuracy", right.mean(), prog_bar=True)
        if len(self.model.tasks) > 1:
            for task, fraction in zip(self.model.tasks, right, strict=True):
                log(f"val_{task}", fraction)

    def _read(self, images: ImageSet[LargeImages], indices: Tensor) -> tuple[Located, HeadOutput]:
        """Return what the detector and the head return for the images at indices (B,)."""
        view = self.model.view(images.images, indices.cpu())
        _, located, output = self.model.read(view, self.model.locate(view))
        return located, output

    def _labels(self, images: ImageSet[LargeImages], indices: Tensor) -> list[Tensor]:
        chosen = indices.cpu()
        return [labels[chosen].to(indices.device) for labels in images.tasks.values()]

    def _coarse_loss(self, located: Located, index: int) -> Tensor:
        """Return how far the coarse scores are from the maximum fine score of each region."""
        assert located.score_map is not None
        assert located.thumbnail is not None
        factor = FACTORS[index % len(FACTORS)]
        fine = located.score_map.detach()
        if self.detector.coarse is None or min(fine.shape[-2:]) < factor:
            return fine.new_zeros(())
        highest = F.max_pool2d(fine[:, None], factor).flatten(1)
        scores = self.detector.coarse(F.avg_pool2d(located.thumbnail, factor)).flatten(1)
        wanted = highest.softmax(dim=1)
        return F.kl_div(scores.log_softmax(dim=1), wanted, reduction="batchmean")


def _task_logits(output: HeadOutput) -> Tensor:
    return output.logits[:, None] if output.task_logits is None else output.task_logits


def task_losses(logits: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of the tasks' losses, and the accuracy of each (T,).

    Cross-entropy; of a task with booleans for labels, the sum over the classes of the binary one,
    and an answer is right where it is so for every class.

    Args:
        logits: (B, T, classes).
        labels: for each task (B,) class indices, or (B, classes) booleans.
    """
    loss, right = logits.new_zeros(()), []
    for task, wanted in enumerate(labels):
        answer = logits[:, task].float()
        if wanted.dtype == torch.bool:
            bits = F.binary_cross_entropy_with_logits(answer, wanted.float(), reduction="none")
            loss = loss + bits.sum(dim=1).mean() / 3
        else:
            loss = loss + F.cross_entropy(answer, wanted)
        right.append(correct(answer, wanted).float().mean())
    return loss, torch.stack(right)
