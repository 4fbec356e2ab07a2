"""Base class of the objectives: seeds, check of the loss, optimizer and learning-rate schedule."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.images.values import as_floats
from foveal.models.image_model import ImageModel
from foveal.training.optimizers import make_optimizer, make_schedule
from foveal.training.settings import Recipe


class Objective(L.LightningModule):
    """A model and the loss that training minimises, as a Lightning module.

    A subclass computes the loss, and logs a value under the name of each of its `columns`.

    Args:
        model: the model that is trained.
        recipe: settings of the training run.
        steps: optimizer steps in all epochs.
    """

    columns: tuple[str, ...]  # columns of metrics.csv, one row per epoch
    monitor: str  # the column by which the best weights are chosen
    mode: str  # `max` or `min`

    def __init__(self, model: ImageModel, recipe: Recipe, steps: int):
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.steps = steps

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its index, so that a resumed run equals an uninterrupted one."""
        # The factors are primes, so that runs, epochs and processes have different seeds.
        seed = self.recipe.training.seed * 1_000_003 + self.current_epoch
        torch.manual_seed(seed * 1_009 + self.global_rank)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Save the recipe with the weights, so that a run with another recipe cannot resume."""
        checkpoint["recipe"] = self.recipe.to_dict()

    def check_loss(self, loss: Tensor, index: int) -> None:
        """Check that the loss of step `index` is finite.

        Raises:
            UserError: the loss is infinite or NaN.
        """
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, step {index}. "
                "The last good checkpoint is kept; try a lower training.lr."
            )

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimizer, with its schedule if it has one, in Lightning's form."""
        optimizer = make_optimizer(self.model, self.recipe.training)
        auxiliary = list(self.auxiliary().parameters())
        if auxiliary:
            optimizer.add_param_group({"params": auxiliary, "weight_decay": 0.0})
        return self.with_schedule(optimizer)

    def auxiliary(self) -> nn.Module:
        """Return modules that the same optimizer trains, and that are discarded after training."""
        return nn.Module()

    def with_schedule(self, optimizer: torch.optim.Optimizer) -> dict[str, object]:
        """Return an optimizer, with the recipe's schedule if it has one, in Lightning's form."""
        schedule = make_schedule(optimizer, self.recipe, self.steps)
        if schedule is None:
            return {"optimizer": optimizer}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    @staticmethod
    def floats(images: Tensor) -> Tensor:
        """Return uint8 images as floats in [0, 1], in the memory format that suits convolutions."""
        return as_floats(images).contiguous(memory_format=torch.channels_last)
