"""Random augmentation of batches on the device, with all moves combined in a single resampling.

kornia applies one operation after the other instead. For 512 images of 32x32 pixels on two CPU
cores, its RandomAffine took 40 ms, which is as long as a training step; this module takes 7 ms.
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

_MAX_SQUARES = 8  # maximum number of squares that are shown or hidden in an image
_CELLS_PER_SIDE = (4, 7, 14)  # grids of which random cells are shown


@dataclass(frozen=True)
class Augment:
    """Random augmentation of training images. With the defaults, images are unchanged.

    Attributes:
        shift: maximum shift in pixels along each axis. Images are shifted by whole pixels, unless
            they are rotated or scaled too.
        rotate: maximum rotation in degrees, in either direction.
        scale: maximum relative change of size, larger or smaller.
        flip: whether to mirror images left to right, each with a probability of one half.
        alternate: whether to mirror half of the images in even epochs and the other half in odd
            ones, instead of at random (Jordan 2024, arXiv:2404.00498, section 3.6).
            `Batches` implements it.
        erase: side in pixels of a random square that is replaced by the batch's mean colour
            (Cutout, DeVries 2017). With an even side, the square is one pixel smaller.
        hide: whether to grey out random regions of each image, of any size. A classifier trained
            in this way can serve as a judge, which tells how much evidence a region of an image
            contains (EVAL-X, Jethani et al. 2021).
        mix: probability that a batch is mixed: a rectangle in each of its images is replaced by
            that of another image, and the label is mixed in proportion to the area (CutMix, Yun et
            al. 2019); below 1.
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
        """Return images (B, C, H, W), each moved and partly erased at random.

        The random numbers are from torch's global generator.
        """
        return self.erase_square(self.move(images))

    def _uniform(self, images: Tensor, *shape: int) -> Tensor:
        """Return random values in [-1, 1), on the device and in the type of the images."""
        return torch.rand(*shape, device=images.device, dtype=images.dtype) * 2 - 1

    def move(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), each shifted, rotated, scaled and mirrored at random."""
        return apply_moves(images, self.draw_moves(images))

    def draw_moves(self, images: Tensor) -> Tensor | None:
        """Return a random affine transform for each of images (B, C, H, W).

        Returns:
            Matrices (B, 2, 3), which map locations in the moved image to locations in the original
            one, in grid units; None if images are neither shifted, rotated, scaled nor mirrored.
        """
        if not (self.shift or self.rotate or self.scale or self.flip):
            return None
        batch, _, height, width = images.shape
        angle = self._uniform(images, batch) * math.radians(self.rotate)
        factor = 1 + self._uniform(images, batch) * self.scale
        mirror = torch.ones_like(factor)
        if self.flip:
            mirror = torch.where(self._uniform(images, batch) < 0, -mirror, mirror)
        # With a margin of 0.5, rounding makes all shifts by whole pixels equally likely.
        shift = self._uniform(images, batch, 2) * (self.shift + 0.5)
        if not (self.rotate or self.scale):
            shift = shift.round().clamp(-self.shift, self.shift)  # whole pixels, without blur
        else:
            shift = shift.clamp(-self.shift, self.shift)
        ratio = height / width  # grid units differ between the axes, so a rotation is scaled by it
        theta = torch.zeros(batch, 2, 3, device=images.device, dtype=images.dtype)
        theta[:, 0, 0] = mirror * factor * angle.cos()
        theta[:, 0, 1] = -mirror * factor * angle.sin() * ratio
        theta[:, 1, 0] = factor * angle.sin() / ratio
        theta[:, 1, 1] = factor * angle.cos()
        theta[:, 0, 2] = shift[:, 0] * 2 / width
        theta[:, 1, 2] = shift[:, 1] * 2 / height
        return theta

    def erase_square(self, images: Tensor) -> Tensor:
        """Return images (B, C, H, W), each with the pixels of a random square replaced."""
        if not self.erase:
            return images
        batch, _, height, width = images.shape
        x = torch.randint(0, width, (batch, 1), device=images.device)
        y = torch.randint(0, height, (batch, 1), device=images.device)
        columns = (torch.arange(width, device=images.device) - x).abs() * 2 < self.erase
        rows = (torch.arange(height, device=images.device) - y).abs() * 2 < self.erase
        erased = (rows[:, :, None] & columns[:, None, :])[:, None]
        return torch.where(erased, images.mean(dim=(0, 2, 3), keepdim=True), images)

    def mix_in(self, images: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Replace a random rectangle in images (B, C, H, W) by that of other images in the batch.

        Returns:
            The images and their labels. If nothing was mixed, both are returned unchanged;
            otherwise, the labels are the fraction of each class in each image, (B, classes).
        """
        if not self.mix or torch.rand(()) >= self.mix:
            return images, labels
        with extra("torchvision", "vision"):
            from torchvision.transforms import v2  # takes seconds, not needed to read a recipe

        mixed, fractions = v2.CutMix(num_classes=classes)(images, labels)
        return mixed, fractions

    def hide_regions(self, images: Tensor, grey: Tensor) -> Tensor:
        """Return images (B, C, H, W), each with random regions greyed out if `hide` is set.

        Half of the images show only a few squares, or everything except them. The other half shows
        random cells of a grid, each with a probability that is drawn per image.

        Args:
            images: images in [0, 1].
            grey: (1, C, 1, 1) value of the hidden pixels.
        """
        if not self.hide:
            return images
        shown = torch.cat([_draw_squares(images[::2]), _draw_cells(images[1::2])])
        indices = torch.arange(len(images))
        # The masks of the even images come first: restore the order of the images.
        order = torch.cat([indices[::2], indices[1::2]]).argsort()
        return torch.where(shown[order][:, None].to(images.device), images, grey)


def apply_moves(images: Tensor, moves: Tensor | None) -> Tensor:
    """Return images (B, C, H, W) moved as `Augment.draw_moves` has drawn.

    Locations outside of an image get the pixels mirrored at its border.
    """
    if moves is None:
        return images
    grid = F.affine_grid(moves, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def undo_moves(keypoints: Tensor, moves: Tensor | None) -> Tensor:
    """Map keypoints (B, K, 2) of moved images to the original images, in grid units."""
    if moves is None:
        return keypoints
    return keypoints @ moves[:, :, :2].transpose(1, 2) + moves[:, None, :, 2]


def _draw_squares(images: Tensor) -> Tensor:
    """Return masks (B, H, W) of one to eight random squares, or of everything except them."""
    batch, _, height, width = images.shape
    side = int(torch.randint(2, max(3, min(height, width) // 2), ()))
    centres = torch.rand(batch, _MAX_SQUARES, 2) * 2 - 1
    counts = torch.randint(1, _MAX_SQUARES + 1, (batch, 1))
    unused = torch.arange(_MAX_SQUARES) >= counts
    centres = centres.masked_fill(unused[..., None], 9.0)  # far outside of the image, in [-1, 1]
    squares = patch_mask(centres, side, (height, width))
    return squares ^ (torch.rand(batch, 1, 1) < 0.5)


def _draw_cells(images: Tensor) -> Tensor:
    """Return masks (B, H, W) of grid cells, each shown with a probability drawn per image."""
    batch, _, height, width = images.shape
    count = _CELLS_PER_SIDE[int(torch.randint(len(_CELLS_PER_SIDE), ()))]
    cells = torch.rand(batch, 1, count, count) < torch.rand(batch, 1, 1, 1)
    return F.interpolate(cells.float(), (height, width), mode="nearest")[:, 0] > 0
