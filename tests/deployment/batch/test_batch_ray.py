"""Predicting on a Ray cluster of two small nodes: the same rows, whoever dies.

One cluster for all tests: to start one, and to import torch in each of its processes, takes most
of the time. The last test takes a node away.
"""

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
from foveal.deployment.batch import cluster as engine

pytestmark = pytest.mark.slow
IMAGES = 160
OPTIONS = {"shard_size": 20, "batch_size": 4}
LIMIT = 240  # seconds until a run is taken for hung; it needs a few


@contextmanager
def limit(seconds: int):
    """Fail where the block takes longer."""

    def late(*_):
        raise AssertionError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Small JPEGs of noise, two of which cannot be read."""
    folder, chance = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = chance.integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03d}.jpg")
    (folder / "033.jpg").write_bytes(b"")
    (folder / "101.jpg").write_bytes((folder / "100.jpg").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An untrained net that takes its time, so that a run has a middle to be killed in."""
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
    # Ray lowers its workers' priority, and waits for a node for seconds: too few where other tests
    # have both cores.
    settings = {"RAY_worker_niceness": "0", "RAY_raylet_start_wait_time_s": "200"}
    for name, value in {**engine._QUIET, **settings}.items():
        os.environ.setdefault(name, value)
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.second = cluster.add_node(**node)
    cluster.wait_for_nodes()
    # Connected once, so that the next run finds the processes of the last.
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run(cluster, images, model, out, **options):
    with limit(LIMIT):
        return predict(model, images, out, engine="ray", **OPTIONS, **options)


@pytest.fixture
def at_batch(monkeypatch):
    """Have something done when a number of batches has come; return what counts them."""
    came = []

    def arrange(number, action):
        batch_of = engine._batch

        def counted(row):
            came.append(row["shard"])
            if len(came) == number:
                action()
            return batch_of(row)

        monkeypatch.setattr(engine, "_batch", counted)
        return came

    return arrange


def test_a_cluster_of_two_cpus_does_not_hang_and_gives_the_same_bits(
    cluster, images, model, expected, tmp_path
):
    found = run(cluster, images, model, tmp_path / "out")
    assert (found.images, found.errors, found.resized) == (IMAGES, 2, IMAGES - 2)
    assert pq.read_table(tmp_path / "out") == expected


def test_readers_apart_give_the_same_bits(cluster, images, model, expected, tmp_path, monkeypatch):
    apart = partial(engine.predict_on_ray, apart=True)
    monkeypatch.setattr(engine, "predict_on_ray", apart)
    run(cluster, images, model, tmp_path / "out")
    assert pq.read_table(tmp_path / "out") == expected


def test_pictures_come_back_from_the_cluster(cluster, images, tmp_path):
    some = tmp_path / "some"
    some.mkdir()
    (some / "a.jpg").write_bytes((images / "000.jpg").read_bytes())
    run(cluster, some, "mnist-focus", tmp_path / "out", explain=True)
    (row,) = pq.read_table(tmp_path / "out").to_pylist()
    assert Image.open(tmp_path / "out" / row["picture"]).width > 100


def predictors() -> list[int]:
    """Return the ids of the processes that hold a model, of raylets that descend from this one."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            title = (entry / "cmdline").read_bytes()
            if b"ray::MapWorker" in title and _descends(int(entry.name)):
                found.append(int(entry.name))
        except (OSError, ValueError):
            continue
    return found


def _descends(process: int) -> bool:
    while process > 1:
        if process == os.getpid():
            return True
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        process = int(fields[1])
    return False


def test_a_worker_killed_in_mid_run_loses_and_doubles_nothing(
    cluster, images, model, expected, tmp_path, at_batch
):
    killed = []

    def kill():
        killed.append(predictors()[0])
        os.kill(killed[0], signal.SIGKILL)

    came = at_batch(2, kill)
    run(cluster, images, model, tmp_path / "out")
    assert len(killed) == 1
    assert len(came) >= IMAGES // OPTIONS["batch_size"]
    assert pq.read_table(tmp_path / "out") == expected


_RUN = """
import sys
from foveal.deployment.batch import predict
model, images, out, address = sys.argv[1:]
predict(model, images, out, engine="ray", address=address, resume=True, **{options})
"""


def test_a_killed_driver_is_resumed_with_each_image_once(
    cluster, images, model, expected, tmp_path
):
    out = tmp_path / "out"
    code = _RUN.replace("{options}", repr(OPTIONS))
    command = [sys.executable, "-c", code, str(model), str(images), str(out), cluster.address]
    with limit(LIMIT):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not list(out.glob("part-*.parquet")):
            assert process.poll() is None, "the run ended before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(list(out.glob("part-*.parquet")))
    assert done < IMAGES // OPTIONS["shard_size"], "nothing was left to resume"
    found = run(cluster, images, model, out, resume=True)
    assert found.new == IMAGES - done * OPTIONS["shard_size"]
    assert pq.read_table(out) == expected


def test_a_cluster_that_is_not_there_is_said_before_anything_is_written(images, tmp_path):
    address = "127.0.0.1:9"
    command = [sys.executable, "-m", "foveal", "predict", "mnist-focus", str(images)]
    command += ["--engine", "ray", "--address", address, "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert ended.returncode == 1
    assert f"No Ray cluster responds at {address}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_node_killed_in_mid_run_loses_and_doubles_nothing(
    cluster, images, model, expected, tmp_path, at_batch
):
    at_batch(2, lambda: cluster.remove_node(cluster.second, allow_graceful=False))
    run(cluster, images, model, tmp_path / "out")
    assert len(cluster.worker_nodes) == 0
    assert pq.read_table(tmp_path / "out") == expected
