"""Joint training of the parts of a crops model: head, detector and last stages of the backbone.

A crop is a square of the image, reduced to a fixed number of samples. The detector chooses crops
among candidates, and the head classifies the image from the chosen ones.
"""

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
    """Minimises cross-entropy on the chosen crops, and trains the detector's scores.

    The detector learns from the weights that the head gives the crops: by the gradient of the
    weights and, with `crops.distil`, by a ranking loss, which is small if crops that have more
    weight also have higher scores. A batch consists of labels and of images, or of stored features
    of a frozen backbone as `FeatureBatches` yields them.
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
            ranking = ranking_loss(located.score, output.weights[:, None])  # of a single task
            loss = loss + self.recipe.crops.distil * ranking
        self.log_training(loss, output.logits, labels, index)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], index: int) -> None:
        """Measure loss and accuracy on one batch."""
        inputs, labels = batch
        if isinstance(inputs, Tensor):
            inputs = self.floats(inputs)
        _, output = self._read(inputs)
        self.log_validation(output.logits, labels)

    def _read(self, inputs: Any) -> tuple[Located, HeadOutput]:
        """Return the locations of the chosen crops and the output of the head.

        Args:
            inputs: images (B, C, H, W), floats in [0, 1], or stored features by name.
        """
        model = cast(FocusNet, self.model)
        if not isinstance(inputs, Tensor):
            return read_frozen(model, inputs, self.recipe.training.freeze_depth)
        view = model.view(inputs)
        _, located, output = model.read(view, model.locate(view))
        return located, output
