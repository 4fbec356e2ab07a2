"""Classification: cross-entropy on augmented images, with optional mask and honesty terms.

The mask term draws attention maps to annotated regions. The honesty terms keep a model's keypoints
from revealing the class.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from foveal.images import WholeView
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel
from foveal.training.augment import apply_moves
from foveal.training.objectives.classification.masks import mask_loss
from foveal.training.objectives.honesty.terms import Step, honesty_terms
from foveal.training.objectives.losses import class_weights, classification_loss
from foveal.training.objectives.objective import Objective
from foveal.training.settings import Recipe


class Classification(Objective):
    """Minimises cross-entropy on randomly augmented images, and validates on unchanged images.

    A batch consists of uint8 images (B, C, H, W), each with its mask as an additional last channel
    if the dataset has masks, and labels (B,).
    """

    class_weights: Tensor
    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    monitor, mode = "val_accuracy", "max"

    def __init__(self, model: ImageModel, recipe: Recipe, steps: int):
        super().__init__(model, recipe, steps)
        assert Ability.CLASSES in model.abilities
        self.honest = honesty_terms(model, recipe)  # None if the recipe has no such terms
        self.train_accuracy = MulticlassAccuracy(model.num_classes, average="micro")
        # If the loss gives rare classes more weight, validation averages accuracy over the classes.
        self.balanced = recipe.training.balance > 0
        average: Literal["macro", "micro"] = "macro" if self.balanced else "micro"
        self.val_accuracy = MulticlassAccuracy(model.num_classes, average=average)
        self.register_buffer("class_weights", torch.ones(model.num_classes), persistent=False)

    def set_class_weights(self, labels: Tensor) -> None:
        """Set the class weights from the labels (N,) of the training images."""
        class_count = len(self.class_weights)
        self.class_weights = class_weights(labels, class_count, self.recipe.training.balance)

    def auxiliary(self) -> nn.Module:
        """Return the honesty terms, whose probes are trained too; an empty module without terms."""
        return self.honest or nn.Module()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the classification loss, with the class weights if the recipe balances classes.

        Args:
            logits: (B, classes).
            labels: (B,) class indices, or the fraction of each class (B, classes) in mixed images.
        """
        weights = self.class_weights if self.balanced else None
        return classification_loss(logits, labels, self.recipe.training, weights)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of a batch of uint8 images and labels."""
        images_with_masks, labels = batch
        # A mask, if any, is the last channel of its image, so that both are moved together.
        pixels = self.floats(images_with_masks)
        augment = self.recipe.augment
        channels = self.model.in_channels
        moves = augment.draw_moves(pixels)
        pixels = apply_moves(pixels, moves)
        images = augment.erase_square(pixels[:, :channels])
        images, targets = augment.mix_in(images, labels, len(self.class_weights))
        images = augment.hide_regions(images, self.model.mean)
        masks = pixels[:, channels:]  # (B, 1, H, W), or (B, 0, H, W) if there are no masks
        view = WholeView(self.model.normalised(images))
        if self.honest is None:
            observed = self.model.observe(view)
        else:
            progress = self.global_step / self.steps
            observed = self.honest.observe(self.model, view, progress)
        loss = self.cross_entropy(observed.logits, targets)
        if observed.maps is not None and masks.shape[1]:
            loss = loss + self.recipe.training.mask_weight * mask_loss(observed.maps, masks)
        if self.honest is not None:
            loss = loss + self.honest(self.model, Step(view, observed, labels, moves, progress))
        self.log_training(loss, observed.logits, labels, index)
        return loss

    def log_training(self, loss: Tensor, logits: Tensor, labels: Tensor, index: int) -> None:
        """Log the loss and the accuracy of step `index`, after checking that the loss is finite."""
        self.check_loss(loss, index)
        self.train_accuracy(logits, labels)
        size = len(labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        self.log(
            "train_accuracy",
            self.train_accuracy,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=size,
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Measure loss and accuracy on a batch."""
        images, labels = batch
        self.log_validation(self.model(self.floats(images)), labels)

    def log_validation(self, logits: Tensor, labels: Tensor) -> None:
        """Log the loss and the accuracy of a batch."""
        self.val_accuracy(logits, labels)
        loss = F.cross_entropy(logits, labels)
        self.log("val_loss", loss, batch_size=len(labels), sync_dist=True)
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))
