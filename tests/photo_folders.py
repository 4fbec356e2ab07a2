"""Folders of generated photographs, with a subfolder per class."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, counts: dict[str, int], side: int = 20) -> Path:
    """Write noise images, brighter in every second class; return the folder.

    Args:
        folder: created, with a subfolder per class.
        counts: number of images per class.
        side: side of the square images in pixels.
    """
    rng = np.random.default_rng(0)
    for class_index, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = (rng.random((side, side, 3)) * 99 + 140 * (class_index % 2)).astype("uint8")
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def write_noise(folder: Path, count: int, shape: tuple[int, ...]) -> Path:
    """Write noise images of two classes, in folders train and val; return the folder.

    Args:
        folder: created.
        count: number of images per class and split.
        shape: (H, W) of grey or (H, W, 3) of colour images.
    """
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def write_halves(folder: Path, count: int, seed: int = 0) -> Path:
    """Write `count` photographs per class, red in the left or the right half; return the folder.

    The classes are named `left` and `right`, and the photographs have three different shapes.
    """
    rng = np.random.default_rng(seed)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            height, width = [(100, 140), (140, 100), (110, 110)][index % 3]
            pixels = rng.integers(0, 90, (height, width, 3), np.uint8)
            half = slice(0, width // 2) if name == "left" else slice(width // 2, None)
            pixels[:, half, 0] += 120
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder
