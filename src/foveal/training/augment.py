"""Batched augmentation on the device, with a single resampling.

kornia applies one operation at a time. For 512 images of 32x32 on two cores, its RandomAffine took
40 ms, as long as a training step; this module takes 7 ms.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.foundation.arguments import Range
from foveal.foundation.errors import extra
from foveal.foundation.ranges import Fraction
from foveal.images.geometry import patch_mask


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images; none with the defaults.

    Attributes:
        shift: maximum shift in pixels along each axis; by whole pixels unless rotated or scaled.
        rotate: maximum rotation in degrees, either way.
        scale: maximum relative change of size, larger or smaller.
        flip: whether to mirror a random half of the images left to right.
        alternate: whether to mirror half of the images in even epochs and the other half in odd
            ones, instead of at random (Jordan 2024, arXiv:2404.00498, section 3.6).
            `Batches` implements it.
        erase: side in pixels of a square replaced by the batch's mean (Cutout, DeVries 2017); an
            even one counts as one less.
        hide: whether to grey out random regions of each image, of any size, to train a judge of
            evidence (EVAL-X, Jethani et al. 2021).
        mix: probability that a rectangle in each image of a batch is replaced by another image's,
            and the same fraction of its label by the other's (CutMix, Yun et al. 2019); below 1.
    """

    shift: Annotated[int, Range(0, 4096)] = 0
    rotate: Annotated[float, Range(0, 180)] = 0.0
    scale: Fraction = 0.0
    flip: bool = False
    alternate: bool = False
    erase: Annotated[int, Range(0, 4096)] = 0
    hide: bool = False
    mix: Fraction = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), randomly moved and erased by torch's generator."""
        return self.erase_square(self.move(images))

    def _uniform(self, images: Tensor, *shape: int) -> Tensor:
        return torch.rand(*shape, device=images.device, dtype=images.dtype) * 2 - 1

    def move(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), each shifted, rotated, scaled and mirrored at random."""
        return apply_moves(images, self.draw_moves(images))

    def draw_moves(self, images: Tensor) -> Tensor | None:
        """Return a random affine transform for each of images (B, C, H, W).

        Returns:
            (B, 2, 3), from locations in the moved image to those in the original, in grid units;
            None if no move is set.
        """
        if not (self.shift or self.rotate or self.scale or self.flip):
            return None
        batch, _, height, width = images.shape
        angle = self._uniform(images, batch) * math.radians(self.rotate)
        size = 1 + self._uniform(images, batch) * self.scale
        mirror = torch.ones_like(size)
        if self.flip:
            mirror = torch.where(self._uniform(images, batch) < 0, -mirror, mirror)
        shift = self._uniform(images, batch, 2) * (self.shift + 0.5)
        if not (self.rotate or self.scale):
            shift = shift.round().clamp(-self.shift, self.shift)  # whole pixels, without blur
        else:
            shift = shift.clamp(-self.shift, self.shift)
        ratio = height / width
        theta = torch.zeros(batch, 2, 3, device=images.device, dtype=images.dtype)
        theta[:, 0, 0] = mirror * size * angle.cos()
        theta[:, 0, 1] = -mirror * size * angle.sin() * ratio
        theta[:, 1, 0] = size * angle.sin() / ratio
        theta[:, 1, 1] = size * angle.cos()
        theta[:, 0, 2] = shift[:, 0] * 2 / width
        theta[:, 1, 2] = shift[:, 1] * 2 / height
        return theta

    def erase_square(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), each with a random square erased."""
        if not self.erase:
            return images
        batch, _, height, width = images.shape
        x = torch.randint(0, width, (batch, 1), device=images.device)
        y = torch.randint(0, height, (batch, 1), device=images.device)
        columns = (torch.arange(width, device=images.device) - x).abs() * 2 < self.erase
        rows = (torch.arange(height, device=images.device) - y).abs() * 2 < self.erase
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(hidden, images.mean(dim=(0, 2, 3), keepdim=True), images)

    def mix_in(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Replace random rectangles in images (B, C, H, W) by parts of other images in the batch.

        Returns:
            The images, and their labels: unchanged (B,) if nothing was mixed, else the fraction of
            each class (B, classes).
        """
        if not self.mix or torch.rand(()) >= self.mix:
            return images, labels
        with extra("torchvision", "vision"):
            from torchvision.transforms import v2  # takes seconds, not needed to read a recipe

        mixed, fractions = v2.CutMix(num_classes=classes)(images, labels)
        return mixed, fractions

    def hide_regions(self, images: Tensor, grey: Tensor) -> Tensor:
        """Return images (B, C, H, W), each with a random part greyed out if `hide` is set.

        Half of the images show a few squares, or everything except them. The others show random
        cells of a grid, with a random probability per image.

        Args:
            images: images in [0, 1].
            grey: (1, C, 1, 1) value of the hidden pixels.
        """
        if not self.hide:
            return images
        shown = torch.cat([_squares(images[::2]), _cells(images[1::2])])
        indices = torch.arange(len(images))
        order = torch.cat([indices[::2], indices[1::2]]).argsort()
        return torch.where(shown[order][:, None].to(images.device), images, grey)


def apply_moves(images: Tensor, moves: Tensor | None) -> Tensor:
    """Apply the moves of `Augment.draw_moves` to images (B, C, H, W), reflected at the border."""
    if moves is None:
        return images
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def undo_moves(keypoints: Tensor, moves: Tensor | None) -> Tensor:
    """Map keypoints (B, K, 2) of moved images to the original images, in grid units."""
    if moves is None:
        return keypoints
    return keypoints @ moves[:, :, :2].transpose(1, 2) + moves[:, None, :, 2]


def _squares(images: Tensor) -> Tensor:
    """Return regions (B, H, W) of one to eight squares, or their complement, at random."""
    batch, _, height, width = images.shape
    side = int(torch.randint(2, max(3, min(height, width) // 2), ()))
    centres = torch.rand(batch, 8, 2) * 2 - 1
    unused = torch.arange(8) >= torch.randint(1, 9, (batch, 1))
    centres = centres.masked_fill(unused[..., None], 9.0)  # far outside
    squares = patch_mask(centres, side, (height, width))
    return squares ^ (torch.rand(batch, 1, 1) < 0.5)


def _cells(images: Tensor) -> Tensor:
    """Return regions (B, H, W) of grid cells, each shown with a random probability per image."""
    batch, _, height, width = images.shape
    rows = (4, 7, 14)[int(torch.randint(3, ()))]
    cells = torch.rand(batch, 1, rows, rows) < torch.rand(batch, 1, 1, 1)
    return F.interpolate(cells.float(), (height, width), mode="nearest")[:, 0] > 0
