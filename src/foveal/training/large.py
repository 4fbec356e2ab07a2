"""Training on large images: patches where the detector draws them, and the detector by those."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.data import LargeSet
from foveal.errors import UserError
from foveal.metrics.large import correct
from foveal.models.high_res import HighResFocusNet
from foveal.models.large_model import Places
from foveal.training.module import RecipeModule
from foveal.training.settings import Recipe

FACTORS = (2, 4, 8)  # by which the coarse detector's thumbnails are coarser in training

# Weight of the coarse detector's loss. Nothing else trains that detector, and Adam makes up for the
# weight; but its gradient is large, and must not use up what clipping leaves for the others.
COARSE = 0.01


class LargeModule(RecipeModule):
    """Answers all tasks of numbered images; the images themselves stay where they are.

    To the losses of the answers is added how far the detector's scores are from the patches'
    weights, over the patches that were cut: the model that reads them at full resolution teaches
    the one that sees the thumbnail. The detector draws its places at random, by their scores, so
    that it also learns of places that it thinks little of.

    Args:
        model: what is trained.
        recipe: its `large` says how.
        steps: in all epochs.
        sets: `train` and `val`, and `first` where the recipe has one.

    Raises:
        UserError: the first images are not as many as the others.
    """

    monitor, mode = "val_accuracy", "max"

    model: HighResFocusNet

    def __init__(
        self, model: HighResFocusNet, recipe: Recipe, steps: int, sets: Mapping[str, LargeSet]
    ):
        super().__init__(model, recipe, steps)
        self.sets = {name: images.of(model.tasks) for name, images in sets.items()}
        if "first" in sets and len(sets["first"]) != len(sets["train"]):
            raise UserError(
                f"Expected {len(sets['train'])} images in large.first, as there are in "
                f"{sets['train'].name}, but got {len(sets['first'])}."
            )
        self.keypoints = model.keypoints
        several = [f"val_{task}" for task in model.tasks] if len(model.tasks) > 1 else []
        self.columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", *several)

    @property
    def early(self) -> bool:
        """Whether this epoch is one of the first, on smaller images."""
        return "first" in self.sets and self.current_epoch < self.recipe.large.first_epochs

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, and cut as many patches as it is to have."""
        super().on_train_epoch_start()
        early = self.recipe.large.first_keypoints if self.early else 0
        self.model.keypoints = early or self.keypoints

    def on_validation_epoch_start(self) -> None:
        """Cut all patches."""
        self.model.keypoints = self.keypoints

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss on the images of these numbers."""
        images = self.sets["first" if self.early else "train"]
        labels = self._labels(images, batch[0])
        view = self.model.view(images.images, batch[0].cpu())
        places = self.model.places(view)
        found = self.model.answer(view, places.keypoints, places.scores)
        loss, right = answered(found.logits, labels)
        if not self.early and self.recipe.large.distil:
            loss = loss + self.recipe.large.distil * misranked(places.scores, found.weights)
        if self.model.coarse is not None:
            loss = loss + COARSE * self._coarse_loss(places, index)
        self.check_loss(loss, index)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        accuracy = right.mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure the loss and every task's accuracy on the images of these numbers."""
        images = self.sets["val"]
        labels = self._labels(images, batch[0])
        view = self.model.view(images.images, batch[0].cpu())
        found = self.model.answer(view, self.model.places(view).keypoints)
        loss, right = answered(found.logits, labels)
        shared: dict[str, Any] = {"batch_size": len(batch[0]), "sync_dist": True}
        self.log("val_loss", loss, **shared)
        self.log("val_accuracy", right.mean(), prog_bar=True, **shared)
        if len(self.model.tasks) > 1:
            for task, share in zip(self.model.tasks, right, strict=True):
                self.log(f"val_{task}", share, **shared)

    def _labels(self, images: LargeSet, numbers: Tensor) -> list[Tensor]:
        return [labels[numbers.cpu()].to(numbers.device) for labels in images.labels.values()]

    def _coarse_loss(self, places: Places, index: int) -> Tensor:
        """Return how far the coarse detector is from the greatest fine score of each region."""
        factor = FACTORS[index % len(FACTORS)]
        fine = places.map.detach()
        if self.model.coarse is None or min(fine.shape[-2:]) < factor:
            return places.scores.new_zeros(())
        greatest = F.max_pool2d(fine[:, None], factor).flatten(1)
        scores = self.model.coarse(F.avg_pool2d(places.thumbnail, factor)).flatten(1)
        wanted = greatest.softmax(dim=1)
        return F.kl_div(scores.log_softmax(dim=1), wanted, reduction="batchmean")


def answered(logits: Tensor, labels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sum of the tasks' losses, and the share of right answers to each (T,).

    Cross-entropy; of a task with booleans for labels, the sum over the classes of the binary one,
    and an answer is right where it is so for every class.

    Args:
        logits: (B, T, classes).
        labels: for each task (B,) class numbers, or (B, classes) booleans.
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


def misranked(scores: Tensor, weights: Tensor) -> Tensor:
    """Return how far scores (B, K) are from the order of the tasks' weights (B, T, K).

    The logistic loss of each pair of an image's patches (RankNet, Burges et al. 2005), times the
    difference of their weights: the mean over tasks, which get no gradient. The sum over pairs,
    the mean over images. Scores may be far apart where weights are close, but not the other way
    round, so what a detector knows already is not unlearned while the weights are still vague.
    """
    mean = weights.detach().float().mean(dim=1)
    ahead = (mean[:, :, None] - mean[:, None, :]).clamp_min(0)  # (B, K, K)
    behind = scores.float()[:, None, :] - scores.float()[:, :, None]
    return (ahead * F.softplus(behind)).sum(dim=(1, 2)).mean()
