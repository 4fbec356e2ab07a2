"""Input and output of post-hoc methods: a task and an attributor.

A task is a model with the settings of a method. From a task a method prepares an attributor, which
is a function that computes the maps of images.
"""

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
        reshape: function from the output of that module, or its gradient, to features
            (B, channels, h, w); None to derive it from the shape of the output.
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
        """Return the model's logits for a copy of the images.

        A model may change its input in place, which must not affect the caller's images.
        """
        return self.model(images.clone())

    def variants_per_pass(self, images: Tensor) -> int:
        """Return the number of variants of each image (B, C, H, W) that fit in a forward pass."""
        return max(1, self.batch_size // len(images))


# Function from images (B, C, H, W) and the indices (B,) of the classes to explain to maps
# (B, 1, H, W); B is at most `Task.batch_size`.
Attributor = Callable[[Tensor, Tensor], Tensor]
