"""Classification from crops: head, last depths and detector trained together."""

from typing import Any, cast

from torch import Tensor

from foveal.detectors import Located
from foveal.heads import HeadOutput
from foveal.models.crop_features import read_frozen
from foveal.models.focus import FocusNet
from foveal.training.augment import apply_moves
from foveal.training.objectives.classification.objective import Classification
from foveal.training.objectives.losses import ranking_loss


class CropClassification(Classification):
    """Cross-entropy on the crops that the detector selects; their weights teach the detector.

    A batch consists of images, or of frozen features as `FeatureBatches` yields them.
    """

    def training_step(self, batch: tuple[Any, Tensor], index: int) -> Tensor:
        """Return the loss of one batch of images or features, and labels."""
        inputs, labels = batch
        if isinstance(inputs, Tensor):
            pixels = self.floats(inputs)
            pixels = apply_moves(pixels, self.recipe.augment.draw_moves(pixels))
            inputs = self.recipe.augment.erase_square(pixels)
        located, output = self._read(inputs)
        loss = self.cross_entropy(output.logits, labels)
        if self.recipe.crops.distil and located.score is not None and output.weights is not None:
            ranking = ranking_loss(located.score, output.weights[:, None])
            loss = loss + self.recipe.crops.distil * ranking
        self.log_training(loss, output.logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], index: int) -> None:
        """Measure loss and accuracy on one batch."""
        inputs, labels = batch
        inputs = self.floats(inputs) if isinstance(inputs, Tensor) else inputs
        self.log_validation(self._read(inputs)[1].logits, labels)

    def _read(self, inputs: Any) -> tuple[Located, HeadOutput]:
        model = cast(FocusNet, self.model)
        if not isinstance(inputs, Tensor):
            return read_frozen(model, inputs, self.recipe.training.freeze_depth)
        view = model.view(inputs)
        _, located, output = model.read(view, model.locate(view))
        return located, output
