"""What every post-hoc method is given, and what it makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from foveal.observation.logits import class_logits, probabilities


@dataclass(frozen=True)
class Task:
    """A model to explain, and what that may take.

    Attributes:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, classes), or (B, 1) of two.
        shape: C, H and W of its images.
        batch_size: images in one forward pass, whatever a method makes of one image.
        seed: of what a method draws by chance.
        layer: name of the module whose features are read, or None for the method's choice.
        reshape: makes features (B, channels, h, w) of what that module returns, or None where
            they show by their shape.
    """

    model: nn.Module
    shape: tuple[int, int, int]
    batch_size: int = 64
    seed: int = 0
    layer: str | None = None
    reshape: Callable[[Tensor], Tensor] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.shape[1], self.shape[2]

    def scores(self, images: Tensor) -> Tensor:
        """Return a logit per class (B, classes) for images (B, C, H, W), with its gradient."""
        return class_logits(self._answer(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (B, classes) for images (B, C, H, W)."""
        return probabilities(self._answer(images))

    def _answer(self, images: Tensor) -> Tensor:
        """Return the model's logits for a copy: it may change that in place, but not the images."""
        return self.model(images.clone())

    def repeats(self, images: Tensor) -> int:
        """Return how many variants of each of the images (B, C, H, W) go into one forward pass."""
        return max(1, self.batch_size // len(images))


# Images (B, C, H, W), B at most `batch_size`, and class numbers (B,) -> maps (B, 1, H, W).
Attributor = Callable[[Tensor, Tensor], Tensor]
