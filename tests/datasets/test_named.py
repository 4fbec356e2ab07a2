"""Datasets that are loaded by name: splits, file formats, and missing or broken files."""

import gzip
import os
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from foveal.datasets import DATASETS, ImageSet, load_images
from foveal.foundation.errors import UserError


def contents(images: torch.Tensor) -> set[bytes]:
    """Return the pixels of each image as bytes, to find out which images two sets share."""
    return {image.tobytes() for image in images.numpy()}


def encode_idx(values: np.ndarray) -> bytes:
    head = struct.pack(">i", 0x0800 + values.ndim) + struct.pack(f">{values.ndim}i", *values.shape)
    return head + values.astype(np.uint8).tobytes()


def write_fashion(folder: Path, count: int = 100, compressed: bool = False) -> np.ndarray:
    """Write the same random images as both parts of Fashion-MNIST; return them (count, 28, 28)."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    for prefix in ("train", "t10k"):
        for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            path = raw / f"{prefix}-{kind}-ubyte"
            if compressed:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(encode_idx(values)))
            else:
                path.write_bytes(encode_idx(values))
    return images


@pytest.fixture(scope="module")
def digits() -> dict[str, ImageSet]:
    return {split: load_images("mnist-5k", split) for split in ("train", "val", "test")}


def test_mnist_5k_has_disjoint_splits_of_3600_400_and_1000(
    digits: dict[str, ImageSet],
) -> None:
    assert [len(dataset) for dataset in digits.values()] == [3600, 400, 1000]
    assert len(set.union(*(contents(dataset.images) for dataset in digits.values()))) == 5000
    for dataset in digits.values():
        assert dataset.labels.bincount().tolist() == [len(dataset) // 10] * 10
        assert dataset.images.dtype == torch.uint8
        assert dataset.images.shape[1:] == (1, 28, 28)


def test_subset_keeps_images_and_labels_together(digits: dict[str, ImageSet]) -> None:
    subset = digits["test"].subset(torch.tensor([7, 2]))
    assert torch.equal(subset.images[1], digits["test"].images[2])
    assert subset.labels.tolist() == digits["test"].labels[[7, 2]].tolist()


def test_named_dataset_has_the_requested_size_and_channels() -> None:
    dataset = load_images("mnist-5k", "val", size=(14, 20), channels=3)
    assert dataset.images.shape == (400, 3, 14, 20)
    assert dataset.images.dtype == torch.uint8


@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_are_read_plain_and_compressed(tmp_path: Path, compressed: bool) -> None:
    images = write_fashion(tmp_path, compressed=compressed)
    dataset = load_images("fashion-mnist", "test", data_dir=tmp_path)
    assert torch.equal(dataset.images[:, 0], torch.from_numpy(images))
    datasets = [
        load_images("fashion-mnist", split, data_dir=tmp_path) for split in ("train", "val")
    ]
    assert [len(subset) for subset in datasets] == [90, 10]
    assert not contents(datasets[0].images) & contents(datasets[1].images)


def test_data_folder_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion(tmp_path)
    monkeypatch.setenv("FOVEAL_DATA", str(tmp_path))
    assert len(load_images("fashion-mnist", "test")) == 100


@pytest.mark.parametrize("end", [0, 3, 10, -1])
def test_truncated_idx_file_is_an_error(tmp_path: Path, end: int) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match="is truncated"):
        load_images("fashion-mnist", "test", data_dir=tmp_path)


def test_broken_compressed_file_is_an_error(tmp_path: Path) -> None:
    write_fashion(tmp_path, compressed=True)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    for content in (b"nothing", path.read_bytes()[:200], path.read_bytes()[:30] + b"\xff" * 900):
        path.write_bytes(content)
        with pytest.raises(UserError, match="Cannot read"):
            load_images("fashion-mnist", "test", data_dir=tmp_path)


def test_labels_past_the_last_class_are_an_error(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(encode_idx(np.full(100, 10)))
    with pytest.raises(UserError, match="labels from 0 to 9"):
        load_images("fashion-mnist", "test", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_error_without_network_explains_which_files_to_provide(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=rf"no network\): put .* into {tmp_path}"):
        load_images(name, "test", data_dir=tmp_path)


def write_cifar10(folder: Path) -> None:
    """Write 20 random images into each file of the binary version of CIFAR-10."""
    (folder / "cifar-10-batches-bin").mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (20, 3073), np.uint8)
    rows[:, 0] = np.arange(20) % 10
    for name in ("test_batch", *(f"data_batch_{index}" for index in range(1, 6))):
        rows.tofile(folder / "cifar-10-batches-bin" / f"{name}.bin")


def test_cifar10_is_read_from_its_binary_version_in_colour_or_grey(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    dataset = load_images("cifar10", "test", data_dir=tmp_path)
    assert (dataset.name, dataset.images.shape) == ("cifar10", (20, 3, 32, 32))
    assert dataset.labels.tolist() == [*range(10), *range(10)]
    grey = load_images("cifar10", "test", data_dir=tmp_path, channels=1).images
    red, green, blue = dataset.images[0, :, 0, 0].tolist()
    assert int(grey[0, 0, 0, 0]) == round(0.299 * red + 0.587 * green + 0.114 * blue)
    assert len(load_images("cifar10", "train", data_dir=tmp_path)) == 90


def test_truncated_cifar10_is_an_error(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"1234")
    with pytest.raises(UserError, match="not the binary version of CIFAR-10"):
        load_images("cifar10", "test", data_dir=tmp_path)


def write_npz(path: Path, **values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **values)


def test_imagenet32_is_read_from_its_npz_files_with_labels_from_1(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (10, 3072), np.uint8)
    for name in ("train_data_batch_1", "train_data_batch_2", "val_data"):
        write_npz(tmp_path / "imagenet32" / name, data=data, labels=np.arange(1, 11))
    dataset = load_images("imagenet32", "test", data_dir=tmp_path)
    assert torch.equal(dataset.images.flatten(1), torch.from_numpy(data))
    assert dataset.labels.tolist() == list(range(10))
    assert len(dataset.classes) == 1000
    train, val = (load_images("imagenet32", split, data_dir=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (18, 2)


def test_missing_broken_or_pickled_imagenet32_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"put train_data_batch_1\.npz"):
        load_images("imagenet32", "test", data_dir=tmp_path)
    path = tmp_path / "imagenet32" / "val_data.npz"
    data = np.zeros((2, 3072), np.uint8)
    for labels in (
        np.array([0, 1]),  # below 1
        np.array([1, 1001]),  # above 1000
        np.array([1]),  # too few
        np.array([1, "x"], object),  # pickled
    ):
        write_npz(path, data=data, labels=labels)
        with pytest.raises(UserError, match=r"val_data\.npz"):
            load_images("imagenet32", "test", data_dir=tmp_path)
    for content in (b"", b"PK\x03\x04 nothing", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a file of the downsampled ImageNet"):
            load_images("imagenet32", "test", data_dir=tmp_path)


def test_unknown_names_splits_and_paths_are_errors_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'fashion-mnist'"):
        load_images("fashion-mnits", "train")
    with pytest.raises(UserError, match="Did you mean 'val'"):
        load_images("mnist-5k", "vali")
    (tmp_path / "file.png").touch()
    with pytest.raises(UserError, match="got the file"):
        load_images(tmp_path / "file.png", "train")
    assert set(DATASETS) >= {"mnist-5k", "mnist", "fashion-mnist", "cifar10", "imagenet32"}


@pytest.mark.full_data
def test_no_test_digit_of_mnist_5k_is_in_mnist_train(
    full_data: Path, digits: dict[str, ImageSet]
) -> None:
    test_digits = contents(digits["test"].images)
    train, val = (load_images("mnist", split, data_dir=full_data) for split in ("train", "val"))
    assert (len(train), len(val)) == (55_000, 5_000)
    assert not test_digits & contents(train.images)
    assert test_digits <= contents(val.images)


@pytest.mark.full_data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_published_test_split_is_read_completely(name: str, full_data: Path) -> None:
    dataset = load_images(name, "test", data_dir=full_data)
    assert len(dataset) == 10_000
    assert dataset.problems == ()
    assert len(dataset.classes) == 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_too_large_or_special_files_of_a_dataset_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("foveal.datasets.idx.MAX_BYTES", 1000)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    compressed_path = raw / "t10k-images-idx3-ubyte.gz"
    compressed_path.write_bytes(gzip.compress(bytes(2000)))
    with pytest.raises(UserError, match="larger than 1,000 bytes"):
        load_images("fashion-mnist", "test", data_dir=tmp_path)
    compressed_path.with_suffix("").write_bytes(bytes(2000))
    with pytest.raises(UserError, match="larger than 1,000 bytes"):
        load_images("fashion-mnist", "test", data_dir=tmp_path)
    (tmp_path / "imagenet32").mkdir()
    os.mkfifo(tmp_path / "imagenet32" / "val_data.npz")
    with pytest.raises(UserError, match="not a regular file"):
        load_images("imagenet32", "test", data_dir=tmp_path)
