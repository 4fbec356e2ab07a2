"""Planted MNIST: digits with a small mark that gives the class away, but not in the test."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.data.generated.squares import square
from foveal.data.images import ImageSet
from foveal.data.mnist import load_mnist
from foveal.data.place import data_place
from foveal.data.splits import SPLITS
from foveal.errors import unknown_name

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
BORDER = 4  # pixels at each edge: MNIST's digits were fitted into the 20 x 20 pixels between
FOLLOWS = 90  # per cent of the images to train and validate whose mark is that of their class
_AT_ONCE = 1_000  # bounds the images that are floats at a time


def load_planted_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return MNIST with a mark at the border of each image, in the order of the split.

    A mark is 3 x 3 pixels, black and white, with a black margin of one pixel where the image goes
    on. It lies at random where it hides least of the digit's ink, mostly none. In `train` and
    `val` 90 % of the marks are those of the label, the others those of random other classes; in
    `test` the marks are random. A model that reads the marks gets 10 % there, and it is known
    where its evidence was: the masks cover the 3 x 3 pixels.

    After the spurious artefacts of Adebayo et al. 2020, "Debugging tests for model explanations"
    (arXiv:2011.05429).

    Args:
        split: `train`, `val` or `test`.
        data_dir: where MNIST lies.
    """
    digits = load_mnist(split, data_dir)
    generator = _generator(split)
    marks = patterns()[_marks(digits.labels, split, generator)]  # (N, 3, 3)
    corners = _corners(digits.images[:, 0], generator)  # (N, 2)
    framed = F.pad(digits.images[:, 0], (1, 1, 1, 1))  # (N, 30, 30), for margins beyond the edge
    framed[square(corners, MARK + 2)] = F.pad(marks, (1, 1, 1, 1))
    masks = torch.zeros_like(digits.images)
    masks[:, 0][square(corners, MARK)] = 255
    images = framed[:, None, 1:-1, 1:-1].contiguous()
    return replace(digits, name="planted-mnist", images=images, masks=masks)


def planted_marks(split: str, data_dir: str | Path | None = None) -> Tensor:
    """Return the class (N,) whose mark each image of a split of `planted-mnist` bears.

    In the order of the whole split: draw a subset from both alike.

    Args:
        split: `train`, `val` or `test`.
        data_dir: where MNIST lies; FOVEAL_DATA or ~/.cache/foveal if not given.

    Raises:
        UserError: an unknown split, or MNIST cannot be read.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    return _marks(load_mnist(split, data_place(data_dir)).labels, split, _generator(split))


def patterns() -> Tensor:
    """Return the marks (10, 3, 3) of the classes as bytes, 255 where they are white."""
    white = [[pixel == "#" for pixel in rows.replace(" ", "")] for rows in PATTERNS]
    return torch.tensor(white, dtype=torch.uint8).reshape(-1, MARK, MARK) * 255


def _generator(split: str) -> torch.Generator:
    return torch.Generator().manual_seed(SPLITS.index(split))


def _marks(labels: Tensor, split: str, generator: torch.Generator) -> Tensor:
    """Return the class (N,) of each image's mark: the first that is drawn from the generator."""
    count, classes = len(labels), len(PATTERNS)
    if split == "test":
        return torch.randint(classes, (count,), generator=generator)
    follows = torch.randint(100, (count,), generator=generator) < FOLLOWS
    others = labels + torch.randint(1, classes, (count,), generator=generator)
    return torch.where(follows, labels, others % classes)


def _corners(digits: Tensor, generator: torch.Generator) -> Tensor:
    """Return where the marks of digits (N, H, W) go, (N, 2) as (x, y) of the upper left pixel."""
    draws = torch.randint(1 << 24, (len(digits),), generator=generator)
    parts = zip(digits.split(_AT_ONCE), draws.split(_AT_ONCE), strict=True)
    return torch.cat([_corners_of_some(*part) for part in parts])


def _corners_of_some(digits: Tensor, draws: Tensor) -> Tensor:
    ink = F.pad((digits > 0).float(), (1, 1, 1, 1))[:, None]
    hidden = F.avg_pool2d(ink, MARK + 2, stride=1, divisor_override=1)[:, 0]  # ink under a mark
    height, width = hidden.shape[1:]
    inner = BORDER - MARK + 1
    hidden[:, inner : height - inner, inner : width - inner] = torch.inf
    hidden = hidden.flatten(1)
    best = (hidden == hidden.amin(dim=1, keepdim=True)).cumsum(dim=1)
    wanted = draws % best[:, -1] + 1  # the n-th of the best places
    place = torch.searchsorted(best, wanted[:, None])[:, 0]
    return torch.stack([place % width, place // width], dim=1)
