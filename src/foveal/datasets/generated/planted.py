"""Images with a small mark planted that gives the class away, but not in the test."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets.generated.squares import square
from foveal.datasets.images import ImageSet
from foveal.datasets.splits import SPLITS

# A mark for each class, row by row: five white pixels each, that touch all four sides, and any
# two marks differ in four pixels or more.
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
AWAY = 4  # pixels, each way: how far from the middle of its image a mark may lie
FOLLOWS = 90  # per cent of the images to train and validate whose mark is that of their class


def plant_marks(source: ImageSet, name: str) -> ImageSet:
    """Return grey images of ten classes with a mark near the middle of each, like a sticker.

    A mark is 3 x 3 pixels, black and white, with a black margin of one pixel. It lies at random, up
    to 4 pixels each way from the middle, where models look: one at the border tempts few of them.
    In `train` and `val` 90 % of the marks are those of the label, the others those of random other
    classes; in `test` the marks are random. A model that reads the marks gets 10 % there, and it
    is known where its evidence was: the masks cover the 3 x 3 pixels.

    After the spurious artefacts of Adebayo et al. 2020, "Debugging tests for model explanations"
    (arXiv:2011.05429).

    Args:
        source: a whole split of MNIST or Fashion-MNIST.
        name: of what is made.
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
    """Return the class (N,) whose mark each of N images bears, read off their pixels.

    Args:
        images: of `planted-mnist` or `planted-fashion-mnist`, as they were loaded or some of them.

    Raises:
        ValueError: an image bears no mark, or has no mask that says where.
    """
    if images.masks is None or (images.masks > 0).sum() != MARK**2 * len(images):
        raise ValueError(f"{images.name} has no masks of {MARK}x{MARK} pixels: it bears no marks.")
    pixels = images.images[images.masks > 0].reshape(-1, 1, MARK**2)  # rows in their order
    same = (pixels == patterns().flatten(1)).all(dim=2)  # (N, 10)
    if not same.any(dim=1).all():
        raise ValueError(f"An image of {images.name} bears no mark where its mask lies.")
    return same.int().argmax(dim=1)


def patterns() -> Tensor:
    """Return the marks (10, 3, 3) of the classes as bytes, 255 where they are white."""
    white = [[pixel == "#" for pixel in rows.replace(" ", "")] for rows in PATTERNS]
    return torch.tensor(white, dtype=torch.uint8).reshape(-1, MARK, MARK) * 255


def _marks(labels: Tensor, split: str, generator: torch.Generator) -> Tensor:
    """Return the class (N,) of each image's mark: the first that is drawn from the generator."""
    count, classes = len(labels), len(PATTERNS)
    if split == "test":
        return torch.randint(classes, (count,), generator=generator)
    follows = torch.randint(100, (count,), generator=generator) < FOLLOWS
    others = labels + torch.randint(1, classes, (count,), generator=generator)
    return torch.where(follows, labels, others % classes)


def _corners(sides: tuple[int, ...], count: int, generator: torch.Generator) -> Tensor:
    """Return where the marks of images of (H, W) go, (N, 2) as (x, y) of the upper left pixel."""
    height, width = sides
    middle = torch.tensor([(width - MARK) // 2, (height - MARK) // 2])
    return middle + torch.randint(-AWAY, AWAY + 1, (count, 2), generator=generator)
