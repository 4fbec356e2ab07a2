"""RISE: the mean of random masks, weighted by the class probability of the masked image."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.explainers.post_hoc import PostHoc
from foveal.explainers.task import Attributor, Task
from foveal.foundation.precision import at_least_single
from foveal.observation.values import ATTRIBUTION

MASKS = 500
CELLS = 7  # side of a mask's grid
P_SHOWN = 0.5  # probability that a cell is shown, hence the expected value of a mask at a pixel


class Masks:
    """Smooth random masks, the same for every image (Petsiuk et al. 2018, section 3.2).

    A grid of cells, each shown with a probability of 1/2, is enlarged bilinearly to one cell more
    than the image along each axis, and cropped to the size of the image at a random position.

    Args:
        size: height and width of the images in pixels.
        seed: seed of the random masks.
    """

    def __init__(self, size: tuple[int, int], seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.size = size
        self.cell = tuple(-(-side // CELLS) for side in size)
        self.grids = (torch.rand(MASKS, 1, CELLS, CELLS, generator=generator) < P_SHOWN).float()
        self.first_px = [
            torch.randint(0, cell, (MASKS, 1), generator=generator) for cell in self.cell
        ]

    def draw(self, start: int, stop: int) -> Tensor:
        """Return the masks (M, H, W) in [0, 1] with indices from `start` up to `stop`."""
        size = [(CELLS + 1) * cell for cell in self.cell]
        enlarged = F.interpolate(self.grids[start:stop], size, mode="bilinear")[:, 0]
        rows, columns = (
            first[start:stop] + torch.arange(side)  # (M, side)
            for first, side in zip(self.first_px, self.size, strict=True)
        )
        index = torch.arange(len(enlarged))[:, None, None]
        return enlarged[index, rows[:, :, None], columns[:, None, :]]


def rise(task: Task) -> Attributor:
    """Return the mean of 500 masks, weighted by the target's probability for the masked image.

    The mean is divided by the expected value of a mask: the map of a model that ignores the masks
    is its probability (Petsiuk et al. 2018, equation 6). Masked pixels are black.
    """
    masks = Masks(task.size, task.seed)

    def attribute(images: Tensor, targets: Tensor) -> Tensor:
        total = at_least_single(images.new_zeros(len(images), *task.size))
        step = task.repeats(images)
        for start in range(0, MASKS, step):
            batch = masks.draw(start, min(start + step, MASKS)).to(images)  # (M, H, W)
            weights = _probabilities(task, images, targets, batch)  # (B, M)
            total += torch.einsum("bm,mhw->bhw", weights, batch.to(total))
        return (total / (MASKS * P_SHOWN))[:, None]

    return attribute


@torch.no_grad()
def _probabilities(task: Task, images: Tensor, targets: Tensor, masks: Tensor) -> Tensor:
    """Return the targets' probabilities (B, M) for images (B, C, H, W) under masks (M, H, W)."""
    masked = images[:, None] * masks[:, None]  # (B, M, C, H, W)
    probabilities = task.probabilities(masked.flatten(0, 1)).unflatten(0, masked.shape[:2])
    indices = targets[:, None, None].expand(-1, len(masks), 1)
    return at_least_single(probabilities.gather(2, indices)[..., 0])


# If no mask has an effect, the map is the target's probability everywhere: 0 is not neutral.
RISE = PostHoc("rise", rise, replace(ATTRIBUTION, zero=False))
