"""Properties of every data source: downloads, order, colour conversion, read-only access."""

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
    file = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def decode(*contents: bytes) -> tuple[torch.Tensor, list[int], list[str]]:
    sources = [
        (str(index), lambda content=content: content) for index, content in enumerate(contents)
    ]
    images, kept, problems = decode_all(sources, None, None)
    return images, kept, [problem.path for problem in problems]


def write_shard(path: Path, labels: list[Any], images: list[bytes]) -> None:
    cells = [{"bytes": image, "path": None} for image in images]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": cells, "label": pa.array(labels)}), path)


def folder_state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


class FakeResponse(io.BytesIO):
    """The response of a mirror."""

    headers = Message()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Replace the mirror by one that responds with `content`."""
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


def write_archive(path: Path, name: str) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for part in ("test_batch", *(f"data_batch_{index}" for index in range(1, 6))):
            info = tarfile.TarInfo(name.format(part))
            info.size = 2 * 3073
            tar.addfile(info, io.BytesIO(bytes(info.size)))


def test_cifar10_is_unpacked_once_and_its_archive_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []

    def send(what: str, path: Path, md5: str, hint: str) -> None:
        fetched.append(path)
        write_archive(path, "cifar-10-batches-bin/{}.bin")

    monkeypatch.setattr("foveal.datasets.named.fetch", send)
    for _ in range(2):
        assert load_images("cifar10", "test", data_dir=tmp_path).images.shape == (2, 3, 32, 32)
    assert len(fetched) == 1
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
    contents = [b"no image" if value % 7 == 3 else png(value) for value in range(250)] * 2
    images, kept, problems = decode(*contents)
    assert kept == [index for index in range(500) if index % 250 % 7 != 3]
    assert problems == [str(index) for index in range(500) if index % 250 % 7 == 3]
    assert images[:, 0, 0, 0].tolist() == [index % 250 for index in kept]


def test_colour_image_does_not_change_the_grey_ones() -> None:
    images, _, _ = decode(png(10), png(20), png(30, "RGB"), png(40))
    assert images[:, :, 0, 0].tolist() == [[10] * 3, [20] * 3, [30, 0, 0], [40] * 3]


def test_no_readable_image_gives_an_empty_tensor_and_problems() -> None:
    images, kept, problems = decode(b"", b"nothing")
    assert (len(images), kept, problems) == (0, [], ["0", "1"])


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
    for shade, folder in enumerate(folders):  # copies would be excluded from the test split
        folder.mkdir(parents=True)
        (folder / "große Datei 1.png").write_bytes(png(shade))
    bomb = bytearray(png(1))
    bomb[16:24] = struct.pack(">II", 50_000, 50_000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
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


def test_bad_row_is_a_problem_only_of_its_split(tmp_path: Path) -> None:
    images = [b"" if row % 10 == 0 else png(row) for row in range(100)]
    write_shard(tmp_path / "train-0.parquet", [0, 1] * 50, images)
    parts = [load_images(tmp_path, split) for split in ("train", "val", "test")]
    bad = [problem.path.rpartition("#")[2] for part in parts for problem in part.problems]
    assert sorted(bad, key=int) == [str(row) for row in range(0, 100, 10)]
    assert [len(part) + len(part.problems) for part in parts] == [80, 10, 10]


def test_loading_writes_nothing(tmp_path: Path) -> None:
    write_shard(tmp_path / "shards" / "train-0.parquet", [0, 1] * 10, [png(1)] * 20)
    for first, name in ((0, "a"), (10, "b")):
        (tmp_path / "folder" / name).mkdir(parents=True)
        for index in range(10):
            (tmp_path / "folder" / name / f"{index}.png").write_bytes(png(first + index))
    before = folder_state(tmp_path)
    for source in (tmp_path / "shards", tmp_path / "folder", "mnist-5k"):
        for split in ("train", "val", "test"):
            load_images(source, split, data_dir=tmp_path)
    assert folder_state(tmp_path) == before


MNIST_DIGITS = [
    5923,
    6742,
    5958,
    6131,
    5842,
    5421,
    5918,
    6265,
    5851,
    5949,
]  # in the 60,000 published images


@pytest.mark.full_data
@pytest.mark.parametrize(
    ("name", "train", "by_class"),
    [
        ("mnist", 55_000, MNIST_DIGITS),
        ("fashion-mnist", 55_000, [6_000] * 10),
        pytest.param("cifar10", 45_000, [5_000] * 10, marks=pytest.mark.slow),
    ],
)
def test_train_and_val_partition_the_published_training_images(
    name: str, train: int, by_class: list[int], full_data: Path
) -> None:
    parts = [load_images(name, split, data_dir=full_data) for split in ("train", "val")]
    assert [len(part) for part in parts] == [train, 5_000]
    counts = [part.labels.bincount(minlength=10) for part in parts]
    assert (counts[0] + counts[1]).tolist() == by_class
