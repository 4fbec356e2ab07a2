"""The Lightning modules that train models by a recipe: what all share, and the classifiers'."""

import math
from typing import Any, Literal, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.images.values import as_floats
from foveal.models.abilities import Ability
from foveal.models.focus import FocusNet
from foveal.models.image_model import ImageModel
from foveal.training.augment import moved
from foveal.training.honesty import HonestPlaces
from foveal.training.losses import class_weights, classification_loss, mask_loss
from foveal.training.settings import Honesty, Recipe, Training


class RecipeModule(L.LightningModule):
    """What every training shares: seeds, the optimizer and its schedule, and a loss that is sane.

    A subclass logs the `columns`, an epoch's means.
    """

    columns: tuple[str, ...]  # of metrics.csv, between the epoch and its seconds
    monitor: str  # the column that says which weights are best
    mode: str  # `max` or `min`

    def __init__(self, model: ImageModel, recipe: Recipe, steps: int):
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.steps = steps

    def on_train_epoch_start(self) -> None:
        """Seed the epoch."""
        # All that is random in an epoch follows from the seed and its number, so that a run
        # resumed at its start goes on as if it had never stopped.
        seed = self.recipe.training.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed * 1_009 + self.global_rank)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Keep the recipe with the weights, so that they are never taken for another's."""
        checkpoint["recipe"] = self.recipe.to_dict()

    def check_loss(self, loss: Tensor, index: int) -> None:
        """Stop where the loss of step `index` is no longer a number.

        Raises:
            UserError: says what to do about it.
        """
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, step {index}. "
                "The last good checkpoint is kept; try a lower training.lr."
            )

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimizer and schedule, as Lightning takes them."""
        optimizer = make_optimizer(self.model, self.recipe.training)
        probes = list(self.beside().parameters())
        if probes:
            optimizer.add_param_group({"params": probes, "weight_decay": 0.0})
        return self.scheduled(optimizer)

    def beside(self) -> nn.Module:
        """Return what is trained beside the model by the same optimizer, and thrown away."""
        return nn.Module()

    def scheduled(self, optimizer: torch.optim.Optimizer) -> Any:
        """Return an optimizer with the recipe's schedule; when places settle, it begins again."""
        training, settle = self.recipe.training, self.recipe.honesty.settle
        if training.schedule == "constant":
            return {"optimizer": optimizer}
        rates = [group["lr"] for group in optimizer.param_groups]  # a cycle changes them
        first = math.ceil(self.steps * (1 - settle))
        lengths = [first, self.steps - first + 1] if settle else [self.steps + 1]
        cycles: list[torch.optim.lr_scheduler.LRScheduler] = [
            self._cycle(optimizer, rates, length) for length in lengths
        ]
        scheduler = cycles[0]
        if settle:
            scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, cycles, [first])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _cycle(
        self, optimizer: torch.optim.Optimizer, rates: list[float], steps: int
    ) -> torch.optim.lr_scheduler.OneCycleLR:
        """Return a rise to the rates and a fall from them over a number of steps."""
        training, warmup = self.recipe.training, self.recipe.training.warmup
        if round(warmup * steps, 6) == 1:  # a phase of no length, by which torch would divide
            warmup = 1.5 / steps
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            rates,
            total_steps=steps,
            pct_start=warmup,
            cycle_momentum=training.optimizer == "adamw",
        )

    @staticmethod
    def floats(images: Tensor) -> Tensor:
        """Return bytes as numbers from 0 to 1, laid out as convolutions like them."""
        return as_floats(images).contiguous(memory_format=torch.channels_last)


class ClassifierModule(RecipeModule):
    """Cross-entropy on augmented batches of bytes; validation on the images as they are."""

    class_weights: Tensor
    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    monitor, mode = "val_accuracy", "max"

    def __init__(self, model: ImageModel, recipe: Recipe, steps: int):
        super().__init__(model, recipe, steps)
        assert Ability.CLASSES in model.abilities
        self.honest = _honest(model, recipe)
        self.train_accuracy = MulticlassAccuracy(model.num_classes, average="micro")
        # With weighted classes, each counts alike in what is validated too.
        self.balanced = recipe.training.balance > 0
        average: Literal["macro", "micro"] = "macro" if self.balanced else "micro"
        self.val_accuracy = MulticlassAccuracy(model.num_classes, average=average)
        self.register_buffer("class_weights", torch.ones(model.num_classes), persistent=False)

    def weigh(self, labels: Tensor) -> None:
        """Take the weights of the classes from the labels (N,) of the training images."""
        classes = len(self.class_weights)
        self.class_weights = class_weights(labels, classes, self.recipe.training.balance)

    def beside(self) -> nn.Module:
        """Return the probes of honest training."""
        return self.honest or nn.Module()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Return the loss of one batch of bytes and labels."""
        # A mask, where there is one, moves with its image as a channel of it.
        pixels, labels = self.floats(batch[0]), batch[1]
        moves = self.recipe.augment.draw_moves(pixels)
        pixels = moved(pixels, moves)
        images = self.recipe.augment.erase_square(pixels[:, : self.model.in_channels])
        images, answers = self.recipe.augment.mix_in(images, labels, len(self.class_weights))
        images = self.recipe.augment.hide_regions(images, self.model.mean)
        masks = pixels[:, self.model.in_channels :]
        seen = self.model.normalised(images)
        done = self.global_step / self.steps
        if self.honest is None:
            observed = self.model.observe(WholeView(seen))
        else:
            observed = self.honest.observe(cast(FocusNet, self.model), WholeView(seen), done)
        logits, weight = observed.logits, self.recipe.training.mask_weight
        balance = self.class_weights if self.balanced else None
        loss = classification_loss(logits, answers, self.recipe.training, balance)
        if observed.maps is not None and masks.shape[1]:
            loss = loss + weight * mask_loss(observed.maps, masks)
        if self.honest is not None:
            loss = loss + self.honest(self.model, seen, observed, labels, moves, done)
        self.log_training(loss, logits, labels, index)
        return loss

    def log_training(self, loss: Tensor, logits: Tensor, labels: Tensor, index: int) -> None:
        """Note the loss and accuracy of step `index`, once the loss is a number."""
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
        """Measure loss and accuracy on one batch."""
        self.log_validation(self.model(self.floats(batch[0])), batch[1])

    def log_validation(self, logits: Tensor, labels: Tensor) -> None:
        """Note loss and accuracy of one batch."""
        self.val_accuracy(logits, labels)
        loss = F.cross_entropy(logits, labels)
        self.log("val_loss", loss, batch_size=len(labels), sync_dist=True)
        self.log("val_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))


def _honest(model: ImageModel, recipe: Recipe) -> HonestPlaces | None:
    """Return the terms of honest training, where the recipe asks for any."""
    if recipe.honesty == Honesty():
        return None
    detector = cast(FocusNet, model).detector if _is_focus(model) else None
    other = detector is None or detector.context or detector.scaled or detector.in_part
    if detector is None or other or detector.blocks:
        raise UserError("Honest training (`honesty`) is for focus models: 'focus'.")
    if recipe.augment.mix:
        raise UserError("Honest training (`honesty`) cannot use mixed images (`augment.mix`).")
    return HonestPlaces(model, detector.keypoints, recipe)


def _is_focus(model: ImageModel) -> bool:
    return Ability.GIVEN_KEYPOINTS in model.abilities


def make_optimizer(model: ImageModel, training: Training) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; only weights of two dimensions or more decay."""
    groups = _groups(model, training)
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=training.lr, momentum=training.momentum, nesterov=training.momentum > 0
        )
    if training.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=training.lr)
    return torch.optim.AdamW(groups, lr=training.lr)


def _groups(model: ImageModel, training: Training) -> list[dict[str, object]]:
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    fast = {id(layer.bias) for layer in norms} if training.bias_lr != 1 else set()
    parameters = [p for p in model.parameters() if p.requires_grad]
    small = [p for p in parameters if p.ndim <= 1]
    groups: list[dict[str, object]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in small if id(p) not in fast], "weight_decay": 0.0},
    ]
    if fast:
        rate = training.lr * training.bias_lr
        biases = [p for p in small if id(p) in fast]
        groups.append({"params": biases, "weight_decay": 0.0, "lr": rate})
    return groups
