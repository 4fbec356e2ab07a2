"""Interfaces of backbones, which turn images into feature maps and a global vector.

A backbone is a chain of stages. Depth d is the d-th stage, counted from 1, the shallowest. To cut a
backbone at depth d is to separate the stages up to d from the deeper ones, so that either part can
be computed alone. Local features are a stage's output, one vector per location; the global vector
describes the image as a whole.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from foveal.foundation.errors import UserError
from foveal.foundation.parts import Part


class Backbone(Part):
    """Turns images into local features at several depths, and a global vector.

    A concrete backbone is not subclassed further, and keeps each constructor argument as an
    attribute of the same name, from which `Part` rebuilds it. It also sets:

    Attributes:
        in_channels: channels C of the images.
        widths: channels of the local features at each depth, from shallow to deep.
        width: dimension of the global vector.
        strides: for each depth, pixels of the image per location of the features along a side; the
            backbone then pads images at the right and bottom to multiples of it. None for a depth
            whose locations divide the image equally, whatever its size.
        averages: whether the global vector is the mean of the deepest features.
        normalisation: mean and standard deviation by which images in [0, 1] must be normalised,
            such as those of pretraining; None to use those of the training images.
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
            Local features (B, widths[d - 1], h, w) for each depth d from 1, and the global vector
            (B, width).
        """

    def begin(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the local features of images down to a depth, without computing deeper ones.

        Args:
            images: normalised images (B, C, H, W).
            depth: depth, from 1, of the last features returned.

        Returns:
            Local features (B, widths[d - 1], h, w) for each depth d up to `depth`.

        Raises:
            UserError: the backbone cannot be cut at this depth.
        """
        if depth != len(self.widths):
            raise self._depth_error(depth)
        return self(images)[0]

    def finish(self, features: Tensor, depth: int) -> tuple[Mapping[int, Tensor], Tensor]:
        """Compute the rest of the backbone from the local features of a depth.

        Args:
            features: local features (B, C_d, h, w) of this depth, as `begin` returns them.
            depth: depth of these features, from 1.

        Returns:
            The local features of this and all deeper depths, by depth, and the global vector
            (B, width).

        Raises:
            UserError: the backbone cannot be cut at this depth.
        """
        if depth != len(self.widths) or not self.averages:
            raise self._depth_error(depth)
        return {depth: features}, features.mean(dim=(-2, -1))

    def cut(self, depth: int) -> Self:
        """Return a new backbone with the same settings that consists of the stages up to a depth.

        The weights of this backbone are not copied: the new one is initialised as its settings
        specify.

        Args:
            depth: depth, from 1, of the last stage.

        Raises:
            UserError: the backbone cannot be built in part, or has no such depth.
        """
        raise self._depth_error(depth)

    def freeze(self, depth: int) -> None:
        """Freeze the stages up to a depth, in place.

        Their parameters no longer require gradients, and their batch normalisation is set to
        evaluation mode; a later call of `train` would undo the latter.

        Args:
            depth: depth, from 1, of the last frozen stage.

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
        """Return the depths at which the backbone can be cut, for error messages."""
        return str(len(self.widths))

    def shipped(self) -> dict[str, Tensor]:
        """Return the pretrained weights that the Foveal package contains, by state-dict name.

        Model files omit those that training has not changed, because they can be read from here.
        """
        return {}


class StagedBackbone(Backbone):
    """A backbone that can be cut at every depth.

    Each depth's features are computed only from those of the previous depth.
    """

    @abstractmethod
    def stages_of(self, depth: int) -> Sequence[nn.Module]:
        """Return the modules that compute a depth's local features from those of the previous one.

        For depth 1, the first, they compute them from the images.
        """

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
        """Return the local features of all depths and the global vector of normalised images."""
        local = self.begin(images, len(self.widths))
        return local, self.whole(local[-1])

    def begin(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the local features of normalised images (B, C, H, W), for depths 1 to `depth`."""
        self._check_depth(depth)
        local = [self.step(images, 1)]
        for next_depth in range(2, depth + 1):
            local.append(self.step(local[-1], next_depth))
        return local

    def finish(self, features: Tensor, depth: int) -> tuple[Mapping[int, Tensor], Tensor]:
        """Return the local features of a depth and all deeper ones, and the global vector."""
        self._check_depth(depth)
        local = {depth: features}
        for next_depth in range(depth + 1, len(self.widths) + 1):
            local[next_depth] = self.step(local[next_depth - 1], next_depth)
        return local, self.whole(local[len(self.widths)])

    def freeze(self, depth: int) -> None:
        """Freeze the stages up to a depth, in place."""
        self._check_depth(depth)
        for frozen_depth in range(1, depth + 1):
            for module in self.stages_of(frozen_depth):
                module.requires_grad_(False).eval()

    def _check_depth(self, depth: int) -> None:
        if not 1 <= depth <= len(self.widths):
            raise self._depth_error(depth)

    def _valid_depths(self) -> str:
        return f"1 to {len(self.widths)}"
