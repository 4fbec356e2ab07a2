"""Batched augmentation on the device: one resampling for a whole batch.

kornia's augmentations do the same one operation at a time; for 512 images of 32x32 on two cores
its RandomAffine alone took 40 ms, as long as a training step, and this takes 7 ms.
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
    """How much training images vary; all 0 means not at all.

    Attributes:
        shift: greatest shift in pixels, each way; whole pixels unless rotated or scaled.
        rotate: greatest rotation in degrees, each way.
        scale: greatest relative change of size, each way.
        flip: mirror half of the images left to right.
        alternate: mirror each image every other epoch, half of them from the first on, instead
            of by chance (Jordan 2024, arXiv:2404.00498, section 3.6); `Batches` does it.
        erase: side in pixels of a square put to the batch's mean (Cutout, DeVries 2017).
        hide: grey out random regions of each image, of any share of it: what a judge of evidence
            is trained with (EVAL-X, Jethani et al. 2021).
        mix: chance that a rectangle of each image of a batch is another image's, and of its answer
            as large a share (CutMix, Yun et al. 2019); below 1.
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
        """Return moved images (B, C, H, W) with a square erased; draws from torch's generator."""
        return self.erase_square(self.move(images))

    def _uniform(self, images: Tensor, *shape: int) -> Tensor:
        return torch.rand(*shape, device=images.device, dtype=images.dtype) * 2 - 1

    def move(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), each shifted, rotated, scaled and mirrored by chance."""
        return moved(images, self.draw_moves(images))

    def draw_moves(self, images: Tensor) -> Tensor | None:
        """Return how each of images (B, C, H, W) is to be moved, by chance.

        Returns:
            (B, 2, 3), from places in the moved image to those in the image, in grid units; None
            where nothing moves.
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
            shift = shift.round().clamp(-self.shift, self.shift)  # no blur: pixels stay pixels
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
        """Return images (B, C, H, W), each with a square of it hidden."""
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
        """Return images (B, C, H, W) with rectangles of one another, by chance, and the answers.

        Returns:
            The images, and their labels: (B,) as they came where nothing was mixed, else shares
            (B, classes).
        """
        if not self.mix or torch.rand(()) >= self.mix:
            return images, labels
        with extra("torchvision", "vision"):
            from torchvision.transforms import v2  # seconds, that reading a recipe need not take

        mixed, shares = v2.CutMix(num_classes=classes)(images, labels)
        return mixed, shares

    def hide_regions(self, images: Tensor, grey: Tensor) -> Tensor:
        """Return images (B, C, H, W), of each a random part greyed out, if `hide`.

        Half of the images show a few squares or all but these; the others, cells of a grid drawn
        one by one, each shown with a chance that is drawn too.

        Args:
            images: in [0, 1].
            grey: (1, C, 1, 1), what is put in place of the hidden pixels.
        """
        if not self.hide:
            return images
        shown = torch.cat([_squares(images[::2]), _cells(images[1::2])])
        numbers = torch.arange(len(images))
        back = torch.cat([numbers[::2], numbers[1::2]]).argsort()
        return torch.where(shown[back][:, None].to(images.device), images, grey)


def moved(images: Tensor, moves: Tensor | None) -> Tensor:
    """Return images (B, C, H, W) moved as `Augment.draw_moves` says, mirrored at the border."""
    if moves is None:
        return images
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def before_moves(keypoints: Tensor, moves: Tensor | None) -> Tensor:
    """Return where places (B, K, 2) of moved images lie in the images before, in grid units."""
    if moves is None:
        return keypoints
    return keypoints @ moves[:, :, :2].transpose(1, 2) + moves[:, None, :, 2]


def _squares(images: Tensor) -> Tensor:
    """Return regions (B, H, W) of one to eight squares, or all but these, in turn."""
    batch, _, height, width = images.shape
    side = int(torch.randint(2, max(3, min(height, width) // 2), ()))
    places = torch.rand(batch, 8, 2) * 2 - 1
    left_out = torch.arange(8) >= torch.randint(1, 9, (batch, 1))
    places = places.masked_fill(left_out[..., None], 9.0)  # far outside
    squares = patch_mask(places, side, (height, width))
    return squares ^ (torch.rand(batch, 1, 1) < 0.5)


def _cells(images: Tensor) -> Tensor:
    """Return regions (B, H, W) of grid cells, each shown with the image's own chance."""
    batch, _, height, width = images.shape
    rows = (4, 7, 14)[int(torch.randint(3, ()))]
    cells = torch.rand(batch, 1, rows, rows) < torch.rand(batch, 1, 1, 1)
    return F.interpolate(cells.float(), (height, width), mode="nearest")[:, 0] > 0
