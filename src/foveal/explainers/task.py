"""Input and output of post-hoc methods: a task and an attributor."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from foveal.observation.logits import class_logits, probabilities


@dataclass(frozen=True)
class Task:
    """A model to explain, with the settings of post-hoc methods.

    Attributes:
        model: images (B, C, H, W) in [0, 1] -> logits (B, classes), or (B, 1) for two classes.
        shape: C, H and W of its images.
        batch_size: images per forward pass, including the variants that a method makes of an
            image.
        seed: seed of a method's random draws.
        layer: name of the module whose features are read, or None for an automatic choice.
        reshape: output of that module -> features (B, channels, h, w), or None for an automatic
            choice by its shape.
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
        """Return differentiable logits (B, classes) for images (B, C, H, W)."""
        return class_logits(self._logits(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """Return probabilities (B, classes) for images (B, C, H, W)."""
        return probabilities(self._logits(images))

    def _logits(self, images: Tensor) -> Tensor:
        """Return the model's logits for a copy of images, which the model may change in place."""
        return self.model(images.clone())

    def repeats(self, images: Tensor) -> int:
        """Return the number of variants of each image (B, C, H, W) that fit in a forward pass."""
        return max(1, self.batch_size // len(images))


# Images (B, C, H, W), B at most `batch_size`, and class indices (B,) -> maps (B, 1, H, W).
Attributor = Callable[[Tensor, Tensor], Tensor]
