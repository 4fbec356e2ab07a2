"""Code of the Ray workers, called in this process: reading, packing and predicting."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal import zoo
from foveal.deployment.batch import cluster, predict
from foveal.deployment.batch.decoding import Shape

pytest.importorskip("ray")
SHAPE = Shape((28, 28), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven images of noise, one of which cannot be read."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(7):
        pixels = random.integers(0, 256, (28, 28), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def shard(folder):
    """The table that the driver sends for one shard (here the shard with index 4)."""
    paths = [bytes(path) for path in sorted(folder.iterdir())]
    parquet_rows = pa.array([[None] * len(paths)], pa.list_(pa.int64()))
    return pa.table({"shard": [4], "paths": pa.array([paths]), "parquet_rows": parquet_rows})


def read(shard):
    """Return a shard's decoded batches of 3 images as (index of the shard, of the batch, batch)."""
    return list(cluster._read(shard, SHAPE, 3))


def test_a_shard_is_read_in_batches_in_order(shard):
    batches = read(shard)
    assert [(shard_index, index, len(batch)) for shard_index, index, batch in batches] == [
        (4, 0, 3), (4, 1, 3), (4, 2, 1)
    ]  # fmt: skip
    _, _, second_batch = batches[1]
    assert [bool(error) for error in second_batch.errors] == [True, False, False]


def test_packing_and_unpacking_a_batch_leaves_it_unchanged(shard):
    for shard_index, batch_index, batch in read(shard):
        packed = cluster._pack(shard_index, batch_index, batch)
        ((*indices, unpacked),) = cluster._unpack(packed)
        assert indices == [shard_index, batch_index]
        for name in ("paths", "errors", "resized", "notes"):
            assert getattr(unpacked, name) == getattr(batch, name)
        for unpacked_image, image in zip(unpacked.images, batch.images, strict=True):
            if image is None:  # an image that cannot be read
                assert unpacked_image is None
            else:
                assert torch.equal(unpacked_image, image)


def test_readers_send_a_row_per_batch(shard):
    tables = list(cluster._read_packed(shard, lambda table: iter(read(table))))
    assert [table.num_rows for table in tables] == [1, 1, 1]


@pytest.mark.parametrize("explain", [False, True])
def test_an_actor_returns_the_same_rows_as_the_local_engine(shard, folder, tmp_path, explain):
    model = zoo.load("mnist-cnn")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    actor = cluster._Predictor(
        model.settings(), weights, lambda table: iter(read(table)),
        model="mnist-cnn", device="cpu", explain=explain,
    )  # fmt: skip
    batches = [cluster._to_batch(row) for table in actor(shard) for row in table.to_pylist()]
    assert [(batch.shard, batch.index) for batch in batches] == [(4, 0), (4, 1), (4, 2)]
    assert [len(batch.pictures) for batch in batches] == ([3, 2, 1] if explain else [0, 0, 0])
    predict("mnist-cnn", folder, tmp_path / "out", batch_size=3)
    rows, expected = pa.concat_tables(batch.rows for batch in batches), pq.read_table(tmp_path)
    for name in ("prediction", "probability", "error"):
        assert rows[name].to_pylist() == expected[name].to_pylist()
