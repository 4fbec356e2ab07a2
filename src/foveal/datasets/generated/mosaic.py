"""Mosaics of four images of different classes, for the grid pointing game."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.foundation.errors import UserError

QUADRANTS = 4


@dataclass(frozen=True)
class Mosaics:
    """Mosaics of 2 x 2 images.

    Attributes:
        images: (N, C, 2H, 2W) uint8.
        classes: (N, 4) class indices of the quadrants, row by row.
    """

    images: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def quadrant_of(self, classes: Tensor) -> Tensor:
        """Return masks (N, 2H, 2W) of the quadrant with a class, all False without the class.

        Args:
            classes: (N,) class indices, one per mosaic.

        Raises:
            ValueError: `classes` is not of that shape.
        """
        if classes.shape != (len(self),):
            raise ValueError(
                f"Expected classes ({len(self)},), one per mosaic, but got {tuple(classes.shape)}."
            )
        height, width = (side // 2 for side in self.images.shape[-2:])
        own = (self.classes == classes[:, None]).reshape(-1, 2, 2)
        return own.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)


def mosaics(images: ImageSet, count: int, seed: int = 0) -> Mosaics:
    """Return random mosaics of four images of four different classes.

    They serve the grid pointing game (Zhang et al. 2018, "Top-down neural attention by excitation
    backprop"; Böhle et al. 2021, "Convolutional dynamic alignment networks for interpretable
    classifications", arXiv:2104.00032), which measures how much of a class's heat is in the
    quadrant of its image. Böhle et al. use the images that the model classifies with most
    confidence: pass such a `subset` to do the same. All classes are equally likely, whatever
    their numbers of images.

    Args:
        images: images of four or more classes.
        count: number of mosaics.
        seed: seed of the random draws.

    Raises:
        UserError: there are images of fewer than four classes, or `count` is below 1.
    """
    classes, sizes = images.labels.unique(return_counts=True)  # sorted
    if len(classes) < QUADRANTS:
        raise UserError(
            f"Expected images of at least 4 classes, but {images.name!r} ({images.split}) has "
            f"images of {len(classes)}."
        )
    if count < 1:
        raise UserError(f"Expected a count of at least 1 mosaic, but got {count}.")
    generator = torch.Generator().manual_seed(seed)
    chosen = _different(count, len(classes), generator)  # (N, 4)
    draws = torch.randint(1 << 24, chosen.shape, generator=generator)
    by_class = images.labels.argsort(stable=True)
    first = sizes.cumsum(dim=0) - sizes
    picked = by_class[first[chosen] + draws % sizes[chosen]]  # (N, 4)
    tiles = images.images[picked].unflatten(1, (2, 2))  # (N, 2, 2, C, H, W)
    rows = tiles.permute(0, 3, 1, 4, 2, 5)  # (N, C, 2, H, 2, W)
    return Mosaics(rows.flatten(4, 5).flatten(2, 3), classes[chosen])


def _different(count: int, kinds: int, generator: torch.Generator) -> Tensor:
    """Return four different integers below `kinds` per row (count, 4), by a partial shuffle."""
    order = torch.arange(kinds).repeat(count, 1)
    rows = torch.arange(count)
    for position in range(QUADRANTS):
        other = torch.randint(position, kinds, (count,), generator=generator)
        here, there = order[:, position].clone(), order[rows, other]
        order[:, position] = there
        order[rows, other] = here
    return order[:, :QUADRANTS]
