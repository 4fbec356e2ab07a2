"""Classification on stored features: the precomputed outputs of a backbone's frozen stages."""

from collections.abc import Mapping

from torch import Tensor

from foveal.training.features import logits_of
from foveal.training.objectives.classification.objective import Classification


class FeatureClassification(Classification):
    """Minimises cross-entropy on stored features, which replace the images in a batch.

    A batch consists of features by name and labels, as `FeatureBatches` yields them.
    """

    def training_step(self, batch: tuple[Mapping[str, Tensor], Tensor], index: int) -> Tensor:  # type: ignore[override]
        """Return the loss of a batch of features and labels."""
        features, labels = batch
        logits = self._logits(features)
        loss = self.cross_entropy(logits, labels)
        self.log_training(loss, logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Mapping[str, Tensor], Tensor], index: int) -> None:  # type: ignore[override]
        """Measure loss and accuracy on a batch."""
        features, labels = batch
        self.log_validation(self._logits(features), labels)

    def _logits(self, features: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, classes), computed by the stages that are not frozen."""
        return logits_of(self.model, features, self.recipe.training.freeze_depth)
