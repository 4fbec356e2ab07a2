"""The code of a cluster's worker processes, run in one process: reading, packing and predicting."""

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
    (folder / "3.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def shard(folder):
    """The table of one shard, as the driver sends it."""
    paths = [bytes(path) for path in sorted(folder.iterdir())]
    rows = pa.array([[None] * len(paths)], pa.list_(pa.int64()))
    return pa.table({"shard": [4], "paths": pa.array([paths]), "rows": rows})


def read(shard):
    return list(cluster._read(shard, SHAPE, 3))


def test_a_shard_is_read_in_batches_in_order(shard):
    batches = read(shard)
    assert [(number, index, len(batch)) for number, index, batch in batches] == [
        (4, 0, 3), (4, 1, 3), (4, 2, 1)
    ]  # fmt: skip
    assert [bool(error) for error in batches[1][2].errors] == [True, False, False]


def test_packing_and_unpacking_a_batch_leaves_it_unchanged(shard):
    for batch in read(shard):
        ((number, index, decoded),) = cluster._unpack(cluster._pack(*batch))
        assert (number, index) == batch[:2]
        for name in ("paths", "errors", "resized", "notes"):
            assert getattr(decoded, name) == getattr(batch[2], name)
        for unpacked, image in zip(decoded.images, batch[2].images, strict=True):
            assert unpacked is image is None or torch.equal(unpacked, image)


def test_readers_send_a_row_per_batch(shard):
    tables = list(cluster._read_packed(shard, lambda table: iter(read(table))))
    assert [table.num_rows for table in tables] == [1, 1, 1]


@pytest.mark.parametrize("draws", [False, True])
def test_an_actor_returns_the_same_rows_as_the_local_engine(shard, folder, tmp_path, draws):
    model = zoo.load("mnist-cnn")
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    actor = cluster._Predictor(
        model.settings(), weights, lambda table: iter(read(table)),
        model="mnist-cnn", device="cpu", draws=draws,
    )  # fmt: skip
    batches = [cluster._to_batch(row) for table in actor(shard) for row in table.to_pylist()]
    assert [(batch.shard, batch.index) for batch in batches] == [(4, 0), (4, 1), (4, 2)]
    assert [len(batch.pictures) for batch in batches] == ([3, 2, 1] if draws else [0, 0, 0])
    predict("mnist-cnn", folder, tmp_path / "out", batch_size=3)
    rows, expected = pa.concat_tables(batch.rows for batch in batches), pq.read_table(tmp_path)
    for name in ("prediction", "probability", "error"):
        assert rows[name].to_pylist() == expected[name].to_pylist()
