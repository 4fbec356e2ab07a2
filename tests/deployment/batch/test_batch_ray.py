"""Batch prediction on a Ray cluster of two nodes, whose rows equal those of the local engine.

All tests share one cluster, because starting it and importing torch in each of its processes takes
most of the time. The last test removes a node.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foveal.deployment.batch import predict
from foveal.models import build_model

pytest.importorskip("ray")
from foveal.deployment.batch import cluster as ray_engine

pytestmark = pytest.mark.slow
IMAGE_COUNT = 160
OPTIONS = {"shard_size": 20, "batch_size": 4}
LIMIT_S = 240  # time after which a run counts as hung; a normal run takes a few seconds


@contextmanager
def time_limit(seconds: int):
    """Fail if the block takes longer."""

    def fail(*_):
        raise AssertionError(f"not done after {seconds} s")

    previous_handler = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous_handler)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Small JPEGs of noise, two of which cannot be read."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(IMAGE_COUNT):
        pixels = random.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")
    (folder / "033.jpg").write_bytes(b"")
    (folder / "101.jpg").write_bytes((folder / "100.jpg").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with an untrained net that is slow enough for a run to be killed midway."""
    folder = tmp_path_factory.mktemp("model")
    settings = {
        "name": "cnn",
        "widths": [24, 32],
        "num_classes": 10,
        "inputs": {"size": [96, 96]},
    }
    build_model(settings).eval().save_weights(folder)
    return folder


@pytest.fixture(scope="module")
def expected(images, model, tmp_path_factory):
    """The rows that the local engine writes."""
    out = tmp_path_factory.mktemp("local") / "out"
    predict(model, images, out, **OPTIONS)
    return pq.read_table(out)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes with one CPU each."""
    # By default Ray lowers its workers' priority and waits only seconds for a node: too little when
    # other tests use both cores.
    settings = {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "200"}
    for name, value in {**ray_engine._QUIET_ENVIRONMENT, **settings}.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.second_node = cluster.add_node(**node)
    cluster.wait_for_nodes()
    # One connection, so that each run reuses the processes of the previous one.
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(cluster, images, model, out, **options):
    """Predict on the cluster; requiring the fixture makes sure that it is connected."""
    with time_limit(LIMIT_S):
        return predict(model, images, out, engine="ray", **OPTIONS, **options)


@pytest.fixture
def act_at_batch(monkeypatch):
    """Return a function that arranges an action for the arrival of the n-th batch of predictions.

    The function returns a list that grows by the index of a batch's shard whenever one arrives.
    """
    batch_shards = []

    def arrange(number, action):
        to_batch = ray_engine._to_batch

        def count_batch(row):
            batch_shards.append(row["shard"])
            if len(batch_shards) == number:
                action()
            return to_batch(row)

        monkeypatch.setattr(ray_engine, "_to_batch", count_batch)
        return batch_shards

    return arrange


def test_a_cluster_of_two_cpus_gives_the_same_rows_without_hanging(
    cluster, images, model, expected, tmp_path
):
    result = run(cluster, images, model, tmp_path / "out")
    assert (result.images, result.errors, result.resized) == (IMAGE_COUNT, 2, IMAGE_COUNT - 2)
    assert pq.read_table(tmp_path / "out") == expected


def test_separate_reader_processes_give_the_same_rows(
    cluster, images, model, expected, tmp_path, monkeypatch
):
    with_readers = partial(ray_engine.predict_on_ray, readers=True)
    monkeypatch.setattr(ray_engine, "predict_on_ray", with_readers)
    run(cluster, images, model, tmp_path / "out")
    assert pq.read_table(tmp_path / "out") == expected


def test_explanations_drawn_on_the_cluster_are_saved_by_the_driver(cluster, images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((images / "000.jpg").read_bytes())
    run(cluster, folder, "mnist-focus", tmp_path / "out", explain=True)
    (row,) = pq.read_table(tmp_path / "out").to_pylist()
    assert Image.open(tmp_path / "out" / row["picture"]).width > 100


def predictor_pids() -> list[int]:
    """Return the pids of the processes that hold a model, among descendants of this process."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes()
            if b"ray::MapWorker" in title and _is_descendant(int(entry.name)):
                pids.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return pids


def _is_descendant(pid: int) -> bool:
    """Return whether a process is this one or a descendant of it."""
    while pid > 1:
        if pid == os.getpid():
            return True
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])
    return False


def test_killing_a_worker_midway_loses_and_duplicates_no_rows(
    cluster, images, model, expected, tmp_path, act_at_batch
):
    killed = []

    def kill():
        killed.append(predictor_pids()[0])
        os.kill(killed[0], signal.SIGKILL)

    batch_shards = act_at_batch(2, kill)
    run(cluster, images, model, tmp_path / "out")
    assert len(killed) == 1
    # Batches of the killed worker may arrive twice, because its shards are predicted again.
    assert len(batch_shards) >= IMAGE_COUNT // OPTIONS["batch_size"]
    assert pq.read_table(tmp_path / "out") == expected


# The script of a process that runs a batch prediction; its last argument is options as JSON.
_DRIVER = """
import json, sys
from foveal.deployment.batch import predict
model, images, out, address, options = sys.argv[1:]
predict(model, images, out, engine="ray", address=address, resume=True, **json.loads(options))
"""


def test_a_killed_driver_resumes_without_duplicates(cluster, images, model, expected, tmp_path):
    out = tmp_path / "out"
    arguments = [str(model), str(images), str(out), cluster.address, json.dumps(OPTIONS)]
    command = [sys.executable, "-c", _DRIVER, *arguments]
    with time_limit(LIMIT_S):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not list(out.glob("part-*.parquet")):
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    shard_count = len(list(out.glob("part-*.parquet")))
    assert shard_count < IMAGE_COUNT // OPTIONS["shard_size"], "nothing was left to resume"
    result = run(cluster, images, model, out, resume=True)
    assert result.new == IMAGE_COUNT - shard_count * OPTIONS["shard_size"]
    assert pq.read_table(out) == expected


def test_an_unreachable_cluster_is_an_error_before_writing(images, tmp_path):
    address = "127.0.0.1:9"
    command = [sys.executable, "-m", "foveal", "predict", "mnist-focus", str(images)]
    command += ["--engine", "ray", "--address", address, "--out", str(tmp_path / "out")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert process.returncode == 1
    assert f"No Ray cluster responds at {address}" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_removing_a_node_midway_loses_and_duplicates_no_rows(
    cluster, images, model, expected, tmp_path, act_at_batch
):
    act_at_batch(2, lambda: cluster.remove_node(cluster.second_node, allow_graceful=False))
    run(cluster, images, model, tmp_path / "out")
    assert len(cluster.worker_nodes) == 0
    assert pq.read_table(tmp_path / "out") == expected
