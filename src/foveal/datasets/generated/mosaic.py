"""Mosaics: four images of four classes in one, for the grid pointing game."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.datasets.images import ImageSet
from foveal.foundation.errors import UserError

QUADRANTS = 4


@dataclass(frozen=True)
class Mosaics:
    """Images of 2 x 2 images each.

    Attributes:
        images: (N, C, 2H, 2W) bytes.
        classes: (N, 4) class numbers of the quadrants, row by row.
    """

    images: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def quadrant_of(self, classes: Tensor) -> Tensor:
        """Return booleans (N, 2H, 2W), where the image of a class lies in each mosaic.

        All are False where the class is not in the mosaic.

        Args:
            classes: (N,) class numbers, one for each mosaic.

        Raises:
            ValueError: not one class for each mosaic.
        """
        if classes.shape != (len(self),):
            raise ValueError(
                f"Expected classes ({len(self)},), one for each mosaic, but got "
                f"{tuple(classes.shape)}."
            )
        height, width = (side // 2 for side in self.images.shape[-2:])
        own = (self.classes == classes[:, None]).reshape(-1, 2, 2)
        return own.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)


def mosaics(images: ImageSet, count: int, seed: int = 0) -> Mosaics:
    """Return mosaics of four images of four different classes each, drawn by chance.

    For the pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop")
    on grids of Böhle et al. 2021, "Convolutional dynamic alignment networks for interpretable
    classifications" (arXiv:2104.00032): how much of a class's heat lies in the
    quadrant of its image. There the images are those that a model is surest of; give a `subset`
    of such ones for the same. Every class is as likely as any other, however many images it has.

    Args:
        images: of four classes or more.
        count: of mosaics to make.
        seed: of what is drawn.

    Raises:
        UserError: there are images of fewer than four classes, or `count` is below 1.
    """
    classes, sizes = images.labels.unique(return_counts=True)  # sorted
    if len(classes) < QUADRANTS:
        raise UserError(
            f"A mosaic needs images of four classes, but {images.name!r} ({images.split}) has "
            f"images of {len(classes)}."
        )
    if count < 1:
        raise UserError(f"Expected to make 1 mosaic or more, not {count}.")
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
    """Return four different numbers below `kinds` for each row (count, 4): a shuffle's start."""
    order = torch.arange(kinds).repeat(count, 1)
    rows = torch.arange(count)
    for place in range(QUADRANTS):
        other = torch.randint(place, kinds, (count,), generator=generator)
        here, there = order[:, place].clone(), order[rows, other]
        order[:, place] = there
        order[rows, other] = here
    return order[:, :QUADRANTS]
