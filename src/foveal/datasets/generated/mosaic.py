"""Mosaics of four images of different classes, for the grid pointing game."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.foundation.errors import UserError

QUADRANTS = 4


@dataclass(frozen=True)
class Mosaics:
    """Images that each consist of 2 x 2 images of different classes.

    Attributes:
        images: (N, C, 2H, 2W) uint8.
        classes: (N, 4) class indices of the quadrants, row by row.
    """

    images: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def quadrant_of(self, classes: Tensor) -> Tensor:
        """Return boolean masks (N, 2H, 2W) of the quadrant that shows a given class.

        The mask of a mosaic that does not show its class is False everywhere.

        Args:
            classes: (N,) class indices, one per mosaic.

        Raises:
            ValueError: `classes` has another shape.
        """
        if classes.shape != (len(self),):
            raise ValueError(
                f"Expected classes ({len(self)},), one per mosaic, but got {tuple(classes.shape)}."
            )
        height, width = (side // 2 for side in self.images.shape[-2:])
        matches = (self.classes == classes[:, None]).reshape(-1, 2, 2)
        return matches.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)


def mosaics(images: ImageSet, count: int, seed: int = 0) -> Mosaics:
    """Return random mosaics of four images of four different classes.

    They are used in the grid pointing game (Zhang et al. 2018, "Top-down neural attention by
    excitation backprop"; Böhle et al. 2021, "Convolutional dynamic alignment networks for
    interpretable classifications", arXiv:2104.00032). It measures what fraction of the heat map of
    a class is in the quadrant that shows this class. Böhle et al. use the images that the model
    classifies most confidently: pass such a `subset` to do the same. All classes are equally
    likely, regardless of how many images they have.

    Args:
        images: images of four or more classes.
        count: number of mosaics.
        seed: seed of the random draws.

    Raises:
        UserError: the images have fewer than four classes, or `count` is below 1.
    """
    classes, sizes = images.labels.unique(return_counts=True)  # sorted
    if len(classes) < QUADRANTS:
        raise UserError(
            f"Expected images of at least {QUADRANTS} classes, but {images.name!r} "
            f"({images.split}) has {len(classes)}."
        )
    if count < 1:
        raise UserError(f"Expected count to be at least 1, but got {count}.")
    generator = torch.Generator().manual_seed(seed)
    quadrants = _distinct(count, len(classes), generator)  # (N, 4) indices into `classes`
    # Integers far above the size of a class, so that their remainders are nearly uniform.
    draws = torch.randint(1 << 24, quadrants.shape, generator=generator)
    by_class = images.labels.argsort(stable=True)
    first = sizes.cumsum(dim=0) - sizes
    image_indices = by_class[first[quadrants] + draws % sizes[quadrants]]  # (N, 4)
    tiles = images.images[image_indices].unflatten(1, (2, 2))  # (N, 2, 2, C, H, W)
    rows = tiles.permute(0, 3, 1, 4, 2, 5)  # (N, C, 2, H, 2, W)
    return Mosaics(rows.flatten(4, 5).flatten(2, 3), classes[quadrants])


def _distinct(count: int, classes: int, generator: torch.Generator) -> Tensor:
    """Return rows (count, 4) of four distinct random integers from 0 to `classes` - 1.

    Each row consists of the first integers of a Fisher-Yates shuffle.
    """
    order = torch.arange(classes).repeat(count, 1)
    rows = torch.arange(count)
    for position in range(QUADRANTS):
        other = torch.randint(position, classes, (count,), generator=generator)
        current, replacement = order[:, position].clone(), order[rows, other]
        order[:, position] = replacement
        order[rows, other] = current
    return order[:, :QUADRANTS]
