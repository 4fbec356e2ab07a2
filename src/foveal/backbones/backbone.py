"""Interfaces of backbones: images -> feature maps and a global vector."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.foundation.parts import Part


class Backbone(Part):
    """Turns images into local features at several depths, and a global vector.

    A subclass is final, keeps each argument as an attribute, see `Part`, and sets in its
    constructor:

    Attributes:
        in_channels: channels C of the images.
        widths: channels of the local features at each depth, from shallow to deep.
        width: dimension of the global vector.
        strides: pixels of the image per location of each depth's features, if the image is padded
            to a multiple of them; None if the features are spread uniformly over the image.
        averages: whether the global vector is the mean of the deepest features.
        normalisation: mean and standard deviation by which images in [0, 1] must be normalised;
            None for those of the training images.
    """

    in_channels: int
    widths: list[int]
    width: int
    strides: Sequence[int | None]
    averages: bool = False
    normalisation: ClassVar[tuple[float, float] | None] = None

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of normalised images (B, C, H, W).

        Returns:
            Local features (B, widths[d], h, w) for each depth d, and the global vector (B, width).
        """

    def begin(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the local features of normalised images (B, C, H, W) down to a depth, from 1.

        Raises:
            UserError: the backbone cannot be cut at this depth.
        """
        if depth != len(self.widths):
            raise self._depth_error(depth)
        return self(images)[0]

    def finish(self, features: Tensor, depth: int) -> tuple[Mapping[int, Tensor], Tensor]:
        """Continue from the local features (B, C_d, h, w) of a depth.

        Returns:
            The local features of this and deeper depths, by depth, and the global vector
            (B, width).

        Raises:
            UserError: the backbone cannot be cut at this depth.
        """
        if depth != len(self.widths) or not self.averages:
            raise self._depth_error(depth)
        return {depth: features}, features.mean(dim=(-2, -1))

    def cut(self, depth: int) -> Self:
        """Return a new backbone with the same settings that ends at a depth, from 1.

        Its weights are new, initialised as its settings specify.

        Raises:
            UserError: the backbone cannot be built in part, or has no such depth.
        """
        raise self._depth_error(depth)

    def freeze(self, depth: int) -> None:
        """Freeze the layers up to the local features of a depth, from 1.

        Their batch normalisation is in evaluation mode.

        Raises:
            UserError: there is no such depth, or the backbone cannot be cut at it.
        """
        if depth != len(self.widths):
            raise self._depth_error(depth)
        self.requires_grad_(False).eval()

    def _depth_error(self, depth: int) -> UserError:
        return UserError(
            f"Expected a depth at which {type(self).__name__} can be cut, "
            f"{self._valid_depths()}, but got {depth}."
        )

    def _valid_depths(self) -> str:
        return str(len(self.widths))

    def shipped(self) -> dict[str, Tensor]:
        """Return the weights shipped with Foveal, by name in the state dict.

        Model files omit the weights that training has not changed.
        """
        return {}


class StagedBackbone(Backbone):
    """A chain of stages: each depth's features are computed from those of the previous depth."""

    @abstractmethod
    def stages_of(self, depth: int) -> Sequence[nn.Module]:
        """Return the modules that compute the local features of a depth, from 1."""

    @abstractmethod
    def step(self, features: Tensor, depth: int) -> Tensor:
        """Return the local features of a depth, from 1, given those of the previous depth.

        Args:
            features: (B, C, h, w); for depth 1 the normalised images.
            depth: depth of the returned features.
        """

    @abstractmethod
    def whole(self, deepest: Tensor) -> Tensor:
        """Return the global vector (B, width) from the deepest local features (B, C, h, w)."""

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of normalised images (B, C, H, W)."""
        local = self.begin(images, len(self.widths))
        return local, self.whole(local[-1])

    def begin(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the local features of normalised images (B, C, H, W) down to a depth."""
        self._check(depth)
        local = [self.step(images, 1)]
        for deeper in range(2, depth + 1):
            local.append(self.step(local[-1], deeper))
        return local

    def finish(self, features: Tensor, depth: int) -> tuple[Mapping[int, Tensor], Tensor]:
        """Continue from the local features (B, C_d, h, w) of a depth."""
        self._check(depth)
        local = {depth: features}
        for deeper in range(depth + 1, len(self.widths) + 1):
            local[deeper] = self.step(local[deeper - 1], deeper)
        return local, self.whole(local[len(self.widths)])

    def freeze(self, depth: int) -> None:
        """Freeze the layers up to the local features of a depth."""
        self._check(depth)
        for level in range(1, depth + 1):
            for stage in self.stages_of(level):
                stage.requires_grad_(False).eval()

    def _check(self, depth: int) -> None:
        if not 1 <= depth <= len(self.widths):
            raise self._depth_error(depth)

    def _valid_depths(self) -> str:
        return f"1 to {len(self.widths)}"
