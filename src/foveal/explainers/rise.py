"""RISE: the mean of random masks, weighted by the class probability of the masked image."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.precision import at_least_single
from foveal.observation.values import ATTRIBUTION

MASKS = 500  # number of masks
CELLS = 7  # cells along each side of a mask's grid
P_SHOWN = 0.5  # probability that a cell is shown, hence the expected value of a mask at a pixel


class Masks:
    """Smooth random masks, the same for every image (Petsiuk et al. 2018, section 3.2).

    A mask starts as a grid of 7 x 7 cells, each shown (1) with a probability of 1/2 or hidden (0).
    The grid is enlarged bilinearly until it exceeds the image by one cell along each axis, and then
    cropped to the size of the image at a random position.

    Args:
        size: height and width of the images in pixels.
        seed: seed of the random masks.
    """

    def __init__(self, size: tuple[int, int], seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.cell_px = tuple(-(-side // CELLS) for side in size)
        self.grids = (torch.rand(MASKS, 1, CELLS, CELLS, generator=generator) < P_SHOWN).float()
        self.offsets_px = [
            torch.randint(0, cell, (MASKS, 1), generator=generator) for cell in self.cell_px
        ]

    def draw(self, start: int, stop: int) -> Tensor:
        """Return the masks (M, H, W) in [0, 1] with indices from `start` to `stop`, exclusive."""
        enlarged_size = [(CELLS + 1) * cell for cell in self.cell_px]
        enlarged = F.interpolate(self.grids[start:stop], enlarged_size, mode="bilinear")[:, 0]
        rows, columns = (
            offsets[start:stop] + torch.arange(side)  # (M, side)
            for offsets, side in zip(self.offsets_px, self.size, strict=True)
        )
        index = torch.arange(len(enlarged))[:, None, None]
        return enlarged[index, rows[:, :, None], columns[:, None, :]]


def rise(task: Task) -> Attributor:
    """Return a function that computes RISE maps (Petsiuk et al. 2018, equation 6).

    A map is the mean of 500 masks, each weighted by the target's probability for the image under
    that mask, where hidden pixels are black. The mean is divided by the expected value of a mask,
    so that the map of a model that ignores the masks is the probability itself.
    """
    masks = Masks(task.size, task.seed)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        total = at_least_single(images.new_zeros(len(images), *task.size))
        mask_count = task.variants_per_pass(images)
        for start in range(0, MASKS, mask_count):
            some_masks = masks.draw(start, min(start + mask_count, MASKS)).to(images)  # (M, H, W)
            weights = _probabilities(task, images, targets, some_masks)  # (B, M)
            total += torch.einsum("bm,mhw->bhw", weights, some_masks.to(total))
        return (total / (MASKS * P_SHOWN))[:, None]

    return attribute


@torch.no_grad()
def _probabilities(task: Task, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    """Return the targets' probabilities (B, M) for images (B, C, H, W) under masks (M, H, W)."""
    masked = images[:, None] * masks[:, None]  # (B, M, C, H, W)
    probabilities = task.probabilities(masked.flatten(0, 1)).unflatten(0, masked.shape[:2])
    indices = targets[:, None, None].expand(-1, len(masks), 1)
    return at_least_single(probabilities.gather(2, indices)[..., 0])


# The neutral value is not 0: if no mask has an effect, the map is the target's probability
# everywhere.
RISE = PostHoc("rise", rise, replace(ATTRIBUTION, zero=False))
