"""Images with a small mark that reveals the class in training, but not in testing."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.generated.squares import square
from foveal.datasets.images import ImageSet
from foveal.datasets.splits import SPLITS

# One mark per class, row by row: five white pixels that touch all four sides; any two marks
# differ in at least four pixels.
PATTERNS = (
    ".#. ### .#.",
    "#.# .#. #.#",
    "..# ..# ###",
    "..# ##. .##",
    "..# ### #..",
    ".#. .#. ###",
    ".#. #.# #.#",
    ".## #.. ##.",
    "#.. .## .##",
    "#.. #.. ###",
)
MARK = 3  # side of a mark in pixels
MAX_OFFSET_PX = 4  # maximum distance of a mark from the image's middle along each axis
# Percentage of training and validation images that have the mark of their own class.
AGREEMENT_PERCENT = 90


def plant_marks(source: ImageSet, name: str) -> ImageSet:
    """Return grey images of ten classes with a mark near the middle of each.

    A mark has 3 x 3 black and white pixels and a black margin of one pixel. Its position is
    random, up to 4 pixels from the middle along each axis, because few models would use a mark at
    the border. In `train` and `val` 90% of the images have the mark of their label, and the others
    that of another, random class; in `test` the marks are random. A model that classifies by the
    marks therefore has an accuracy of 10% in testing, and its evidence is known: the masks cover
    the 3 x 3 pixels of the mark.

    This follows the spurious artefacts of Adebayo et al. 2020, "Debugging tests for model
    explanations" (arXiv:2011.05429).

    Args:
        source: a complete split of MNIST or Fashion-MNIST.
        name: name of the resulting dataset.
    """
    generator = torch.Generator().manual_seed(SPLITS.index(source.split))
    marks = patterns()[_marks(source.labels, source.split, generator)]  # (N, 3, 3)
    corners = _corners(source.images.shape[2:], len(source), generator)  # (N, 2)
    images = source.images.clone()
    images[:, 0][square(corners - 1, MARK + 2)] = F.pad(marks, (1, 1, 1, 1))
    masks = torch.zeros_like(source.images)
    masks[:, 0][square(corners, MARK)] = 255
    return replace(source, name=name, images=images, masks=masks)


def planted_marks(images: ImageSet) -> Tensor:
    """Return the class (N,) of each image's mark, read from the pixels.

    Args:
        images: images of `planted-mnist` or `planted-fashion-mnist`, or a subset.

    Raises:
        ValueError: an image lacks a mark, or the mask of its mark.
    """
    if images.masks is None or (images.masks > 0).sum() != MARK**2 * len(images):
        raise ValueError(
            f"Expected images with masks of {MARK}x{MARK} pixels, as in planted-mnist, but got "
            f"{images.name}."
        )
    # The pixels of each mark, row by row.
    pixels = images.images[images.masks > 0].reshape(-1, 1, MARK**2)
    matches = (pixels == patterns().flatten(1)).all(dim=2)  # (N, 10)
    if not matches.any(dim=1).all():
        raise ValueError(
            f"Expected a mark inside each mask, but an image of {images.name} has none."
        )
    return matches.int().argmax(dim=1)


def patterns() -> Tensor:
    """Return the marks (10, 3, 3) of the classes, uint8, 255 for white pixels."""
    white = [[pixel == "#" for pixel in pattern.replace(" ", "")] for pattern in PATTERNS]
    return torch.tensor(white, dtype=torch.uint8).reshape(-1, MARK, MARK) * 255


def _marks(labels: Tensor, split: str, generator: torch.Generator) -> Tensor:
    """Draw the class (N,) of each image's mark.

    To keep the dataset reproducible, this must be the first draw from the generator.
    """
    count, classes = len(labels), len(PATTERNS)
    if split == "test":
        return torch.randint(classes, (count,), generator=generator)
    agrees = torch.randint(100, (count,), generator=generator) < AGREEMENT_PERCENT
    others = labels + torch.randint(1, classes, (count,), generator=generator)
    return torch.where(agrees, labels, others % classes)


def _corners(size: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Draw the corners (N, 2) of marks in images of `size` (H, W): (x, y) of the first pixel."""
    height, width = size
    middle = torch.tensor([(width - MARK) // 2, (height - MARK) // 2])
    return middle + torch.randint(
        -MAX_OFFSET_PX, MAX_OFFSET_PX + 1, (count, 2), generator=generator
    )
