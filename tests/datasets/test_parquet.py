"""Parquet shards in the Hugging Face image layout, from a folder or the Hub."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal.datasets import load_images
from foveal.foundation.errors import UserError


def random_pngs(count: int, seed: int = 0) -> list[bytes]:
    """Return the contents of different PNG files of 5 x 7 pixels."""
    contents = []
    for pixels in np.random.default_rng(seed).integers(0, 256, (count, 5, 7, 3), np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        contents.append(file.getvalue())
    return contents


def write_shard(
    path: Path,
    labels: list[Any],
    images: list[Any] | None = None,
    column: str = "image",
    names: list[str] | None = None,
) -> Path:
    """Write a shard; return its path.

    Args:
        path: path of the shard.
        labels: label of each row.
        images: content of each row's image file, or None for a row without an image. By default
            they are random, with the length of the shard's name as the seed: shards whose names
            are of different lengths have different images.
        column: name of the column of images.
        names: class names, which are stored in the metadata if given.
    """
    if images is None:
        images = random_pngs(len(labels), seed=len(path.name))
    cells = [None if image is None else {"bytes": image, "path": None} for image in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(cells, kind), "label": pa.array(labels)})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize("column", ["image", "img"])
def test_images_labels_and_class_names_are_read(tmp_path: Path, column: str) -> None:
    images = random_pngs(4)
    names = ["cat", "dog", "fox"]
    write_shard(tmp_path / "data/test-00000-of-00001.parquet", [1, 0, 1, 0], images, column, names)
    dataset = load_images(tmp_path, "test")
    assert dataset.classes == ("cat", "dog", "fox")
    assert dataset.labels.tolist() == [1, 0, 1, 0]
    expected = np.stack([np.array(Image.open(io.BytesIO(image))) for image in images])
    assert torch.equal(dataset.images, torch.from_numpy(expected).permute(0, 3, 1, 2))
    assert dataset.paths[2].endswith("test-00000-of-00001.parquet#2")


def test_shards_of_one_split_are_joined_and_val_is_split_off(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-00000-of-00002.parquet", [0, 1] * 10)
    write_shard(tmp_path / "train-00001-of-00002.parquet", [0, 1] * 10)
    write_shard(tmp_path / "test-00000-of-00001.parquet", [0] * 5)
    datasets = {split: load_images(tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in datasets.items()} == {
        "train": 36,
        "val": 4,
        "test": 5,
    }
    assert not set(datasets["train"].paths) & set(datasets["val"].paths)
    assert {dataset.classes for dataset in datasets.values()} == {("0", "1")}


def test_shards_without_split_names_are_split_in_three(tmp_path: Path) -> None:
    write_shard(tmp_path / "0000.parquet", [0, 1] * 10)
    datasets = [load_images(tmp_path, split) for split in ("train", "val", "test")]
    assert [len(dataset) for dataset in datasets] == [16, 2, 2]
    assert len({path for dataset in datasets for path in dataset.paths}) == 20


def test_name_of_a_subfolder_defines_the_split_but_that_of_the_folder_itself_does_not(
    tmp_path: Path,
) -> None:
    write_shard(tmp_path / "test" / "train" / "0000.parquet", [0, 1] * 10)
    write_shard(tmp_path / "test" / "validation" / "0000.parquet", [0, 1])
    # There is no test shard, so a tenth of the 20 training images is held out for testing.
    assert len(load_images(tmp_path / "test", "train")) == 18
    assert len(load_images(tmp_path / "test", "val")) == 2


def test_shards_of_the_test_split_are_never_trained_on(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-00000-of-00001.parquet", [0, 1] * 10)
    for split in ("train", "val"):
        with pytest.raises(UserError, match="Expected a shard for the split"):
            load_images(tmp_path, split)


@pytest.mark.parametrize("bad", [-1, 2, None])
def test_label_out_of_range_is_reported_with_shard_and_row(tmp_path: Path, bad: int | None) -> None:
    write_shard(tmp_path / "train-0.parquet", [0, 1, bad, 0], names=["cat", "dog"])
    with pytest.raises(UserError, match=rf"train-0\.parquet, row 2: .* 0 to 1, but got {bad}"):
        load_images(tmp_path, "train")


def test_negative_label_is_an_error_even_without_class_names(tmp_path: Path) -> None:
    write_shard(tmp_path / "train-0.parquet", [0, -1, 1])
    with pytest.raises(UserError, match=r"train-0\.parquet, row 1"):
        load_images(tmp_path, "train")


def test_text_labels_and_huge_labels_are_errors(tmp_path: Path) -> None:
    write_shard(tmp_path / "words" / "train-0.parquet", ["cat", "dog"])
    with pytest.raises(UserError, match="to hold integers"):
        load_images(tmp_path / "words", "train")
    write_shard(tmp_path / "large" / "train-0.parquet", [0, 10**12])
    with pytest.raises(UserError, match="expected labels from 0 to 99999, but got"):
        load_images(tmp_path / "large", "train")


def test_bad_image_is_reported_with_shard_and_row_and_the_rest_is_read(tmp_path: Path) -> None:
    images: list[Any] = random_pngs(6)
    images[1], images[2], images[4] = b"nothing", None, images[4][:60]
    write_shard(tmp_path / "test-0.parquet", [0, 1, 0, 1, 0, 1], images)
    dataset = load_images(tmp_path, "test")
    assert dataset.labels.tolist() == [0, 1, 1]
    rows = [problem.path.rpartition("/")[2] for problem in dataset.problems]
    assert rows == ["test-0.parquet#1", "test-0.parquet#2", "test-0.parquet#4"]


def test_shard_with_only_bad_images_is_an_error(tmp_path: Path) -> None:
    write_shard(tmp_path / "test-0.parquet", [0, 1], [b"", b""])
    with pytest.raises(UserError, match="No image"):
        load_images(tmp_path, "test")


def test_missing_and_mistyped_columns_are_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"picture": [1], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"images \('image' or 'img'\) .*but got picture, label"):
        load_images(tmp_path, "train")
    pq.write_table(pa.table({"image": ["a.png"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match="structs of bytes and path"):
        load_images(tmp_path, "train")


def test_invalid_or_truncated_shard_is_an_error(tmp_path: Path) -> None:
    valid_content = write_shard(tmp_path / "train-0.parquet", [0, 1] * 20).read_bytes()
    for content in (b"", b"not a Parquet file", valid_content[: len(valid_content) // 2]):
        (tmp_path / "train-0.parquet").write_bytes(content)
        with pytest.raises(UserError, match="Cannot read the shard"):
            load_images(tmp_path, "train")


def test_hub_dataset_is_read_as_parquet_and_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "3f2a" / "train-0.parquet", [0, 1] * 10)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: tmp_path / "3f2a")
    assert load_images("hf:owner/name", "train").name == "hf:owner/name"
    (tmp_path / "3f2a" / "train-0.parquet").unlink()
    with pytest.raises(UserError, match="no Parquet shards"):
        load_images("hf:owner/name", "train")


def test_unreachable_hub_error_suggests_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match=r"owner/name from the Hub: no route to host.*folder"):
        load_images("hf:owner/name", "train")


@pytest.mark.parametrize("name", ["hf:name", "hf:", "hf:a/b/c", "hf:../x y"])
def test_hub_name_requires_owner_and_name(name: str) -> None:
    with pytest.raises(UserError, match="hf:OWNER/NAME"):
        load_images(name, "train")
