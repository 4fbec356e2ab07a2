"""Classification on precomputed features of a frozen backbone."""

from collections.abc import Mapping

from torch import Tensor

from foveal.training.features import logits_of
from foveal.training.objectives.classification.objective import Classification


class FeatureClassification(Classification):
    """Cross-entropy on batches of features, as `FeatureBatches` yields them."""

    def training_step(self, batch: tuple[Mapping[str, Tensor], Tensor], index: int) -> Tensor:  # type: ignore[override]
        """Return the loss of a batch of features and labels."""
        logits, labels = self._logits(batch[0]), batch[1]
        loss = self.cross_entropy(logits, labels)
        self.log_training(loss, logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Mapping[str, Tensor], Tensor], index: int) -> None:  # type: ignore[override]
        """Measure loss and accuracy on a batch."""
        self.log_validation(self._logits(batch[0]), batch[1])

    def _logits(self, features: Mapping[str, Tensor]) -> Tensor:
        return logits_of(self.model, features, self.recipe.training.freeze_depth)
