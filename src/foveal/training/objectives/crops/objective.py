"""Classification from crops: head, last depths and detector trained together."""

from typing import Any, cast

from torch import Tensor

from foveal.detectors import Located
from foveal.heads import HeadOutput
from foveal.models.crop_features import read_frozen
from foveal.models.focus import FocusNet
from foveal.training.augment import moved
from foveal.training.objectives.classification.objective import Classification
from foveal.training.objectives.losses import ranking_loss


class CropClassification(Classification):
    """Cross-entropy on the crops that the detector draws; their weights teach the detector.

    A batch consists of images, or of frozen features as `FeatureBatches` yields them.
    """

    def training_step(self, batch: tuple[Any, Tensor], index: int) -> Tensor:
        """Return the loss of one batch of images or features, and labels."""
        seen, labels = batch
        if isinstance(seen, Tensor):
            pixels = self.floats(seen)
            pixels = moved(pixels, self.recipe.augment.draw_moves(pixels))
            seen = self.recipe.augment.erase_square(pixels)
        located, output = self._read(seen)
        loss = self.cross_entropy(output.logits, labels)
        if self.recipe.crops.distil and located.score is not None and output.weights is not None:
            ranking = ranking_loss(located.score, output.weights[:, None])
            loss = loss + self.recipe.crops.distil * ranking
        self.log_training(loss, output.logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], index: int) -> None:
        """Measure loss and accuracy on one batch."""
        seen, labels = batch
        images = self.floats(seen) if isinstance(seen, Tensor) else seen
        self.log_validation(self._read(images)[1].logits, labels)

    def _read(self, seen: Any) -> tuple[Located, HeadOutput]:
        model = cast(FocusNet, self.model)
        if not isinstance(seen, Tensor):
            return read_frozen(model, seen, self.recipe.training.freeze_depth)
        view = model.view(seen)
        _, located, output = model.read(view, model.locate(view))
        return located, output
