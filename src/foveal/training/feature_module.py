"""Training of what follows a frozen backbone, on features that were computed once."""

from typing import Any

from torch import Tensor

from foveal.training.features import logits_of
from foveal.training.losses import classification_loss
from foveal.training.module import ClassifierModule


class FeatureModule(ClassifierModule):
    """Cross-entropy on batches of features, as `FeatureBatches` yields them."""

    def training_step(self, batch: tuple[Any, Tensor], index: int) -> Tensor:
        """Return the loss of one batch of features and labels."""
        logits, labels = self._logits(batch[0]), batch[1]
        balance = self.class_weights if self.balanced else None
        loss = classification_loss(logits, labels, self.recipe.training, balance)
        self.log_training(loss, logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], index: int) -> None:
        """Measure loss and accuracy on one batch."""
        self.log_validation(self._logits(batch[0]), batch[1])

    def _logits(self, kept: dict[str, Tensor]) -> Tensor:
        return logits_of(self.model, kept, self.recipe.training.freeze_depth)
