"""Properties of all data sources: safe downloads, order, colour conversion, read-only access."""

import hashlib
import io
import struct
import tarfile
import urllib.request
import zlib
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal.datasets import ImageSet, load_images
from foveal.datasets.decoding import decode_all
from foveal.datasets.download import fetch
from foveal.datasets.fitting import fit_images
from foveal.foundation.errors import UserError


def png(value: int, mode: str = "L", size: tuple[int, int] = (4, 4)) -> bytes:
    """Return a PNG of one colour: grey, or if `mode` is RGB, red.

    Args:
        value: the value of grey or red.
        mode: `L` or `RGB`.
        size: width and height in pixels.
    """
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def decode(*contents: bytes) -> tuple[torch.Tensor, list[int], list[str]]:
    """Return the readable images, their indices in `contents`, and the paths of unreadable ones.

    The path of an image is its index, as text.
    """
    sources = [
        (str(index), lambda content=content: content) for index, content in enumerate(contents)
    ]
    images, kept_indices, problems = decode_all(sources, None, None)
    return images, kept_indices, [problem.path for problem in problems]


def write_shard(path: Path, labels: list[Any], images: list[bytes]) -> None:
    """Write a Parquet shard with these labels and contents of image files."""
    cells = [{"bytes": image, "path": None} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": pa.array(labels)}), path)


def folder_state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and modification time of everything in a folder, by path."""
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


class FakeResponse(io.BytesIO):
    """The response of a mirror."""

    headers = Message()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Replace the mirror; return a dict whose `content` is what it responds with."""
    state = {"content": b"some bytes"}
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: FakeResponse(state["content"]))
    return state


def test_download_is_saved_complete_under_its_name(
    tmp_path: Path, mirror: dict[str, bytes]
) -> None:
    md5 = hashlib.md5(mirror["content"]).hexdigest()
    fetch("MNIST/digits", tmp_path / "raw" / "digits.gz", md5, "put it there")
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["digits.gz"]
    assert (tmp_path / "raw" / "digits.gz").read_bytes() == mirror["content"]


def test_download_with_a_wrong_checksum_leaves_no_file(
    tmp_path: Path, mirror: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match="not the published file: put it there"):
        fetch("MNIST/digits", tmp_path / "digits.gz", "0" * 32, "put it there")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_download_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakeResponse):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionResetError("reset by peer")
            return super().read(2)

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Broken(b"some bytes"))
    with pytest.raises(UserError, match="reset by peer"):
        fetch("MNIST/digits", tmp_path / "digits.gz", "0" * 32, "put it there")
    assert list(tmp_path.iterdir()) == []


def test_oversized_download_is_aborted(
    tmp_path: Path, mirror: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveal.datasets.download.MAX_BYTES", 5)
    with pytest.raises(UserError, match="larger than 5 bytes"):
        fetch("MNIST/digits", tmp_path / "digits.gz", "0" * 32, "put it there")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_data_folder_is_an_error(tmp_path: Path, mirror: dict[str, bytes]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot download MNIST/.*: put t10k-images.* into "):
        load_images("mnist", "test", data_dir=tmp_path / "file")
    with pytest.raises(UserError, match=r"Cannot download cifar10.*: put its binary version"):
        load_images("cifar10", "test", data_dir=tmp_path / "file")


def write_archive(path: Path, template: str) -> None:
    """Write an archive of CIFAR-10 with two black images per file.

    Args:
        path: path of the archive.
        template: path of a file in the archive; {} stands for its stem.
    """
    with tarfile.open(path, "w:gz") as tar:
        for stem in ("test_batch", *(f"data_batch_{index}" for index in range(1, 6))):
            info = tarfile.TarInfo(template.format(stem))
            info.size = 2 * (1 + 3 * 32 * 32)  # a label and the pixels of each image
            tar.addfile(info, io.BytesIO(bytes(info.size)))


def test_cifar10_is_unpacked_once_and_its_archive_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched_paths: list[Path] = []

    def fake_fetch(what: str, path: Path, md5: str, hint: str) -> None:
        fetched_paths.append(path)
        write_archive(path, "cifar-10-batches-bin/{}.bin")

    monkeypatch.setattr("foveal.datasets.named.fetch", fake_fetch)
    for _ in range(2):
        assert load_images("cifar10", "test", data_dir=tmp_path).images.shape == (2, 3, 32, 32)
    assert len(fetched_paths) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-bin"]


def test_archive_with_paths_outside_the_data_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "foveal.datasets.named.fetch",
        lambda what, path, md5, hint: write_archive(path, "../{}.bin"),
    )
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="Cannot unpack"):
        load_images("cifar10", "test", data_dir=tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((0x0801, 1, 1, 1), "not an idx file of 3 dimensions"),
        ((0x0D03, 1, 1, 1), "not an idx file"),
        ((0x0803, 2**31 - 1, 2**31 - 1, 2**31 - 1), "is truncated"),
        ((0x0803, -1, -1, 1), "is truncated"),
        ((0x0803, 1, 2, 2), "is truncated"),
    ],
)
def test_invalid_idx_header_is_an_error(
    tmp_path: Path, head: tuple[int, ...], message: str
) -> None:
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack(">4i", *head) + b"\0")
    with pytest.raises(UserError, match=message):
        load_images("mnist", "test", data_dir=tmp_path)


def test_images_stay_in_order_around_unreadable_ones() -> None:
    contents = [b"not an image" if value % 7 == 3 else png(value) for value in range(250)] * 2
    images, kept_indices, problems = decode(*contents)
    assert kept_indices == [index for index in range(500) if index % 250 % 7 != 3]
    assert problems == [str(index) for index in range(500) if index % 250 % 7 == 3]
    assert images[:, 0, 0, 0].tolist() == [index % 250 for index in kept_indices]


def test_grey_images_have_equal_channels_if_another_image_has_colour() -> None:
    images, _, _ = decode(png(10), png(20), png(30, "RGB"), png(40))
    assert images[:, :, 0, 0].tolist() == [[10] * 3, [20] * 3, [30, 0, 0], [40] * 3]


def test_unreadable_images_only_give_an_empty_tensor_and_problems() -> None:
    images, kept_indices, problems = decode(b"", b"nothing")
    assert (len(images), kept_indices, problems) == (0, [], ["0", "1"])


def test_grey_conversion_matches_pillow_within_one_level() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    labels = torch.zeros(50, dtype=torch.long)
    grey = fit_images(ImageSet("noise", "test", images, labels, ("noise",)), None, 1).images
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    assert grey.shape == (50, 1, 32, 32)
    assert np.abs(grey[:, 0].numpy().astype(int) - expected).max() <= 1


def test_decompression_bomb_among_good_images_is_reported(tmp_path: Path) -> None:
    folders = [tmp_path / split / name for split in ("train", "test") for name in ("a", "b")]
    for shade, folder in enumerate(
        folders
    ):  # different, as copies are excluded from the test split
        folder.mkdir(parents=True)
        (folder / "große Datei 1.png").write_bytes(png(shade))
    bomb = bytearray(png(1))
    bomb[16:24] = struct.pack(">II", 50_000, 50_000)  # width and height
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))  # checksum of the header
    (tmp_path / "test" / "b" / "bomb.png").write_bytes(bomb)
    dataset = load_images(tmp_path, "test")
    assert [Path(path).name for path in dataset.paths] == ["große Datei 1.png"] * 2
    assert [Path(problem.path).name for problem in dataset.problems] == ["bomb.png"]
    assert "pixels" in dataset.problems[0].reason


def test_shard_of_grey_and_colour_rows_is_read_as_colour(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-0.parquet", [0, 1, 0], [png(1), png(2, "RGB"), png(3)])
    images = load_images(tmp_path, "test").images
    assert images[:, :, 0, 0].tolist() == [[1] * 3, [2, 0, 0], [3] * 3]
    assert load_images(tmp_path, "test", channels=1, size=(2, 3)).images.shape == (3, 1, 2, 3)


def test_non_integer_labels_are_an_error(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", [0.0, 1.5], [png(1), png(2)])
    with pytest.raises(UserError, match="'label' to hold integers, but got double"):
        load_images(tmp_path, "train")


def test_rows_of_several_sizes_require_a_size(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-0.parquet", [0, 1], [png(1), png(2, size=(5, 3))])
    with pytest.raises(UserError, match=r"#0 is 4x4, .*#1 is 3x5\).*size"):
        load_images(tmp_path, "test")


def test_bad_row_is_reported_only_with_its_own_split(tmp_path: Path) -> None:
    images = [b"" if row % 10 == 0 else png(row) for row in range(100)]
    write_shard(tmp_path / "train-0.parquet", [0, 1] * 50, images)
    datasets = [load_images(tmp_path, split) for split in ("train", "val", "test")]
    bad_rows = [
        problem.path.rpartition("#")[2] for dataset in datasets for problem in dataset.problems
    ]
    assert sorted(bad_rows, key=int) == [str(row) for row in range(0, 100, 10)]
    assert [len(dataset) + len(dataset.problems) for dataset in datasets] == [80, 10, 10]


def test_loading_writes_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path / "shards" / "train-0.parquet", [0, 1] * 10, [png(1)] * 20)
    for offset, name in ((0, "a"), (10, "b")):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "folder" / name / f"{index}.png").write_bytes(png(offset + index))
    before = folder_state(tmp_path)
    for source in (tmp_path / "shards", tmp_path / "folder", "mnist-5k"):
        for split in ("train", "val", "test"):
            load_images(source, split, data_dir=tmp_path)
    assert folder_state(tmp_path) == before


# Images of each digit among the 60,000 published training images.
MNIST_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.full_data
@pytest.mark.parametrize(
    ("name", "train_count", "class_counts"),
    [
        ("mnist", 55_000, MNIST_COUNTS),
        ("fashion-mnist", 55_000, [6_000] * 10),
        pytest.param("cifar10", 45_000, [5_000] * 10, marks=pytest.mark.slow),
    ],
)
def test_train_and_val_partition_the_published_training_images(
    name: str, train_count: int, class_counts: list[int], full_data: Path
) -> None:
    datasets = [load_images(name, split, data_dir=full_data) for split in ("train", "val")]
    assert [len(dataset) for dataset in datasets] == [train_count, 5_000]
    counts = [dataset.labels.bincount(minlength=10) for dataset in datasets]
    assert (counts[0] + counts[1]).tolist() == class_counts
