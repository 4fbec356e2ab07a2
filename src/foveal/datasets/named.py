"""Named datasets: for each name, a loader that reads the images from files in the data folder.

MNIST and Fashion-MNIST are stored as torchvision stores them (`MNIST/raw`, `FashionMNIST/raw`). The
docstrings of the other loaders describe their files.
"""

import functools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from foveal.datasets.download import fetch
from foveal.datasets.generated import load_cluttered_mnist, plant_marks
from foveal.datasets.idx import read_pair
from foveal.datasets.images import ImageSet
from foveal.datasets.mnist import load_mnist, load_mnist_5k
from foveal.datasets.parquet import load_parquet
from foveal.datasets.splits import VAL_IMAGES, complement, stratified
from foveal.foundation.errors import UserError
from foveal.foundation.files import open_regular, read_bytes
from foveal.foundation.registry import Registry

# Names of the classes of Fashion-MNIST and of CIFAR-10, in the order of their labels.
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
_PIXEL_BYTES = 3 * 32 * 32  # bytes of the pixels of one image, in CIFAR-10 and in imagenet32
_ROW_BYTES = 1 + _PIXEL_BYTES  # label and pixels of an image in CIFAR-10's binary version
_FILE_BYTES = 10_000 * _ROW_BYTES  # length of a file, which holds 10,000 images
_IMAGENET_CLASS_COUNT = 1_000


def load_fashion_mnist(split: str, data_dir: Path) -> ImageSet:
    """Return a split of Fashion-MNIST; 5,000 training images are held out for validation."""
    images, labels = read_pair(data_dir, "FashionMNIST", split)
    return _select_split(ImageSet("fashion-mnist", split, images, labels, FASHION))


def load_cifar10(split: str, data_dir: Path) -> ImageSet:
    """Return a split of CIFAR-10; 5,000 training images are held out for validation.

    The data are read from the first of these that exists: Parquet shards in `cifar10/data`, the
    binary version in `cifar-10-batches-bin`, and a copy in JPEG in `cifar10-jpeg/data`. If none
    does, the binary version is downloaded. The images read from the copy in JPEG are returned as
    the dataset `cifar10-jpeg`, because results on them cannot be compared with results on the
    lossless images.
    """
    prefix = "test" if split == "test" else "train"
    binary = data_dir / "cifar-10-batches-bin"
    names = ["test_batch"] if prefix == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    files = [binary / f"{name}.bin" for name in names]
    lossless = _shards(data_dir / "cifar10", prefix)
    jpeg = _shards(data_dir / "cifar10-jpeg", prefix)
    split_indices = functools.partial(_split_indices, split=split)  # labels -> indices to decode
    if lossless:
        return load_parquet(lossless, "cifar10", split, CIFAR10, choose=split_indices)
    if all(file.is_file() for file in files):
        return _read_cifar10(files, split)
    if jpeg:
        return load_parquet(jpeg, "cifar10-jpeg", split, CIFAR10, choose=split_indices)
    _fetch_cifar10(data_dir)
    return _read_cifar10(files, split)


def _shards(folder: Path, prefix: str) -> list[Path]:
    """Return the sorted Parquet files in the `data` folder whose names begin with `prefix`."""
    return sorted((folder / "data").glob(f"{prefix}-*.parquet"))


def _read_cifar10(files: list[Path], split: str) -> ImageSet:
    """Return a split of CIFAR-10, read from files of the binary version."""
    try:
        contents = [read_bytes(file, _FILE_BYTES) for file in files]
        raw = np.concatenate([np.frombuffer(content, np.uint8) for content in contents])
    except (OSError, UserError) as error:
        raise UserError(f"Cannot read {files[0].parent}: {error}") from None
    if raw.size == 0 or raw.size % _ROW_BYTES or raw[::_ROW_BYTES].max() > 9:
        raise UserError(f"The files in {files[0].parent} are not the binary version of CIFAR-10.")
    rows = torch.from_numpy(raw.reshape(-1, _ROW_BYTES))
    images = rows[:, 1:].reshape(-1, 3, 32, 32).contiguous()
    return _select_split(ImageSet("cifar10", split, images, rows[:, 0].long(), CIFAR10))


def _fetch_cifar10(data_dir: Path) -> None:
    """Download the binary version of CIFAR-10 and unpack it into the data folder."""
    import tarfile

    archive = data_dir / "cifar-10-binary.tar.gz"
    hint = (
        f"put its binary version into {data_dir}/cifar-10-batches-bin/ "
        f"or its Parquet shards into {data_dir}/cifar10/data/"
    )
    fetch("cifar10", archive, "c32a1d4ab5d03f1284b67883e8d87530", hint)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(data_dir, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"Cannot unpack {archive}: {error}") from None
    finally:
        archive.unlink()


def load_imagenet32(split: str, data_dir: Path) -> ImageSet:
    """Return a split of the downsampled ImageNet (Chrabaszcz et al. 2017) from its npz files.

    `val` is held out from the training images; `test` is the published validation set.
    """
    folder = data_dir / "imagenet32"
    pattern = "val_data*.npz" if split == "test" else "train_data*.npz"
    files = sorted(folder.glob(pattern))
    if not files:
        raise UserError(
            f"imagenet32 is not in {folder}: put train_data_batch_1.npz … and val_data.npz there "
            "(image-net.org, 'Download downsampled image data', requires signing in)."
        )
    labels = torch.cat([_read_npz(file, "labels") for file in files])
    indices = _split_indices(labels, split)
    in_split = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, indices, True)
    images = torch.empty(len(indices), 3, 32, 32, dtype=torch.uint8)
    read_count = written_count = 0
    # Files are read one by one, because two copies of all images may not fit in memory.
    for file in files:
        pixels = _read_npz(file, "data")
        selected = pixels[in_split[read_count : read_count + len(pixels)]]
        images[written_count : written_count + len(selected)] = selected
        read_count += len(pixels)
        written_count += len(selected)
    classes = tuple(str(index) for index in range(_IMAGENET_CLASS_COUNT))
    return ImageSet("imagenet32", split, images, labels[in_split], classes)


_BROKEN_NPZ = (  # exceptions that broken npz files raise
    OSError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,  # also raised for pickled data
    zipfile.BadZipFile,
    zlib.error,
)


def _read_npz(path: Path, key: str) -> Tensor:
    """Return the labels (N,), counted from 0, or the pixels (N, 3, 32, 32) in one file.

    The labels are read in both cases, because the pixels are checked against their number.

    Args:
        path: path of the file.
        key: `labels`, or `data` for the pixels.
    """
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            labels = np.asarray(file["labels"], dtype=np.int64) - 1
            values = file[key]
    except _BROKEN_NPZ as error:
        raise UserError(f"{path} is not a file of the downsampled ImageNet: {error}") from None
    if key == "labels":
        if len(labels) and not (labels.min() >= 0 and labels.max() < _IMAGENET_CLASS_COUNT):
            raise UserError(f"{path}: expected labels from 1 to {_IMAGENET_CLASS_COUNT}.")
        return torch.from_numpy(labels)
    if values.dtype != np.uint8 or values.shape != (len(labels), _PIXEL_BYTES):
        raise UserError(
            f"{path}: expected data (N, {_PIXEL_BYTES}) of uint8 and N labels, but got "
            f"{values.shape} of {values.dtype} and {len(labels)} labels."
        )
    return torch.from_numpy(values).reshape(-1, 3, 32, 32)


def _select_split(images: ImageSet) -> ImageSet:
    """Return those of the images that belong to the split `images.split`.

    Args:
        images: the test images; or all images from which both `train` and `val` are drawn, with
            the name of the requested split.
    """
    if images.split == "test":
        return images
    return images.subset(_split_indices(images.labels, images.split))


def _split_indices(labels: Tensor, split: str) -> Tensor:
    """Return the indices of the images of a split.

    For validation, `VAL_IMAGES` images are held out, or a tenth of the images if that is less.

    Args:
        labels: labels (N,) of the test images, or of the images of both `train` and `val`.
        split: `train`, `val` or `test`.
    """
    if split == "test":
        return torch.arange(len(labels))
    val = stratified(labels, min(VAL_IMAGES, len(labels) // 10))
    return val if split == "val" else complement(len(labels), val)


Loader = Callable[[str, Path], ImageSet]  # receives the split and the data folder


def _load_planted(split: str, data_dir: Path, name: str, load: Loader) -> ImageSet:
    """Return a split of the dataset that `load` reads, with a small mark planted in each image.

    The mark reveals the class in training, but not in testing (see `plant_marks`). The resulting
    dataset is called `name`.
    """
    return plant_marks(load(split, data_dir), name)


DATASETS: Registry[Loader] = Registry(
    "foveal.datasets",
    {
        "mnist-5k": load_mnist_5k,
        "mnist": load_mnist,
        "fashion-mnist": load_fashion_mnist,
        "cifar10": load_cifar10,
        "imagenet32": load_imagenet32,
        # `pieces` is the number of pieces of other digits, the clutter, in each image.
        "cluttered-mnist-60": functools.partial(load_cluttered_mnist, side=60, pieces=4),
        "cluttered-mnist-100": functools.partial(load_cluttered_mnist, side=100, pieces=8),
        "planted-mnist": functools.partial(_load_planted, name="planted-mnist", load=load_mnist),
        "planted-fashion-mnist": functools.partial(
            _load_planted, name="planted-fashion-mnist", load=load_fashion_mnist
        ),
    },
)
