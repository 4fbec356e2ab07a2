"""What every post-hoc method is given, and what it makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Task:
    """A model to explain, and what that may take.

    Attributes:
        model: maps images (B, C, H, W) in [0, 1] to logits (B, classes).
        shape: C, H and W of its images.
        batch_size: images in one forward pass, whatever a method makes of one image.
        seed: of what a method draws by chance.
        layer: name of the module whose features are read, or None for the method's choice.
    """

    model: nn.Module
    shape: tuple[int, int, int]
    batch_size: int = 64
    seed: int = 0
    layer: str | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        return self.shape[1], self.shape[2]

    def answer(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) for images (B, C, H, W), with their gradient.

        The model gets a copy: it may change that in place, which a method's own images must not
        suffer.
        """
        return self.model(images.clone())

    def repeats(self, images: Tensor) -> int:
        """Return how many variants of each of the images (B, C, H, W) go into one forward pass."""
        return max(1, self.batch_size // len(images))


# Images (B, C, H, W), B at most `batch_size`, and class numbers (B,) -> maps (B, 1, H, W).
Attributor = Callable[[Tensor, Tensor], Tensor]
