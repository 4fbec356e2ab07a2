"""The Ray engine: Ray Data distributes the shards to actors that hold the model.

On CPUs an actor also reads and decodes its shard, and pixels never leave its process. For GPUs,
separate readers decode on all CPUs, and pixels go through the object store.
"""

import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from foveal.deployment.batch.decoding import Decoded, Shape, decode_ahead, reader_count
from foveal.deployment.batch.job import Batch, Job
from foveal.deployment.batch.local import one_thread_each
from foveal.deployment.batch.rows import draw, predict_batch
from foveal.foundation.errors import UserError, missing_extra
from foveal.foundation.interrupts import terminable
from foveal.foundation.memory import keep_freed_memory
from foveal.images.reading import without_warnings
from foveal.images.sources import Item
from foveal.models import ImageModel, as_classifier, build_model

if TYPE_CHECKING:
    from ray.data import Dataset

# Readers request no CPU, and their number is bounded. Otherwise actors could reserve every CPU and
# block the readers forever: with whole CPUs on a small cluster, or with half CPUs when nodes die
# and their actors restart on the remaining nodes.
_READER_CPUS, _ACTOR_CPUS = 0, 0.5
_READER_THREADS = 4  # per reader; they mostly wait for a disk or an object store
_AHEAD = 2  # batches decoded while one is predicted
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the new default, about which Ray would warn
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
_SECONDS = 10  # timeout for connecting to a cluster


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster while the block runs.

    Args:
        address: address of the cluster, `auto` or `HOST:PORT`; None for that in RAY_ADDRESS, or
            else a cluster on this machine alone.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or it fails.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise missing_extra("ray", "ray") from None
    own = not ray.is_initialized()
    if own:
        _connect(address)
    try:
        with terminable():  # Ray has installed its own handler
            yield
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The Ray cluster failed: {reason} Finished shards are kept; continue with --resume."
        ) from error
    finally:
        if own:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Without an address, Ray would join the last cluster started on this machine.
    address = address or os.environ.get("RAY_ADDRESS")
    if address and ":" in address and "://" not in address:
        _check_reachable(address)
    start = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address:
            start(address=address)
        else:
            start(address="local", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"Cannot reach the Ray cluster {address or ''}: {reason}") from None


def _check_reachable(address: str) -> None:
    """Raise a UserError if nothing listens at HOST:PORT; Ray itself would wait for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Ray cluster responds at {address} ({error}): start one with `ray start --head`, "
            "or omit --address to use this machine alone."
        ) from None


def predict_on_ray(
    network: ImageModel, job: Job, shards: Iterable[int], *, apart: bool | None = None
) -> Iterator[Batch]:
    """Yield the predicted batches of shards, in the order in which they are completed.

    Ray restarts failed readers and actors on the remaining nodes, and recomputes what a failed node
    held. Batches that have reached this process are safe.

    Args:
        network: in evaluation mode, on the CPU; each actor gets a copy of it.
        job: the job to run.
        shards: indices of the shards to predict.
        apart: whether separate readers decode; None: only if the models are on GPUs.

    Raises:
        UserError: the device is `cuda`, but the cluster has no GPU.
    """
    import ray
    from ray.data import ActorPoolStrategy

    _quiet_ray_data()
    weights = {name: value.numpy() for name, value in network.cpu().state_dict().items()}
    device, cpus, actors = _resources(job)
    data: Dataset = ray.data.from_arrow([_shard_row(job, shard) for shard in shards])
    read = partial(_read, shape=job.shape, batch_size=job.batch_size)
    apart = device == "cuda" if apart is None else apart
    if apart:
        data = _read_apart(data, read, cpus)
    batches = data.map_batches(
        _Predictor,
        fn_constructor_args=(network.settings(), ray.put(weights), _unpacked if apart else read),
        fn_constructor_kwargs={"model": job.model, "device": device, "draws": job.explain},
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=_ACTOR_CPUS,
        num_gpus=int(device == "cuda"),
    )
    for row in batches.iter_rows():
        yield _batch(row)


def _quiet_ray_data() -> None:
    """Turn off Ray Data's progress bars and messages, as there is a progress bar already."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _resources(job: Job) -> tuple[str, int, int]:
    """Return the device of a job, and the numbers of CPUs and of actors.

    Raises:
        UserError: the device is `cuda`, but the cluster has no GPU.
    """
    import ray

    cpus, gpus = (int(ray.cluster_resources().get(what, 0)) for what in ("CPU", "GPU"))
    if job.device == "cuda" and not gpus:
        raise UserError("The Ray cluster has no GPU: give --device cpu.")
    device = "cuda" if gpus and job.device != "cpu" else "cpu"
    return device, cpus, job.workers or max(1, cpus if device == "cpu" else gpus)


def _shard_row(job: Job, shard: int) -> pa.Table:
    """Return a table of one row, which Ray cannot split."""
    items = job.listing.items(shard)
    return pa.table(
        {
            "shard": [shard],
            "paths": pa.array([[os.fsencode(item.path) for item in items]], pa.list_(pa.binary())),
            "rows": pa.array([[item.row for item in items]], pa.list_(pa.int64())),
        }
    )


_Numbered = tuple[int, int, Decoded]  # index of the shard, of the batch in it, and the batch


def _read(table: pa.Table, shape: Shape, batch_size: int) -> Iterator[_Numbered]:
    """Read and decode shards, a few batches ahead of their use."""
    for row in table.to_pylist():
        items = [
            Item(os.fsdecode(path), index)
            for path, index in zip(row["paths"], row["rows"], strict=True)
        ]
        threads = reader_count(items, _READER_THREADS)
        with without_warnings(), ThreadPoolExecutor(threads) as pool:
            decodings = decode_ahead(items, batch_size, shape, pool)
            waiting = deque(islice(decodings, _AHEAD))
            for index in count():
                waiting.extend(islice(decodings, 1))
                if not waiting:
                    break
                yield row["shard"], index, waiting.popleft().result()


def _read_apart(
    data: "Dataset", read: Callable[[pa.Table], Iterator[_Numbered]], cpus: int
) -> "Dataset":
    """Return a dataset of batches that separate readers decode."""
    return data.map_batches(
        partial(_read_packed, read=read),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=_READER_CPUS,
        concurrency=max(1, cpus),
    )


def _read_packed(
    table: pa.Table, read: Callable[[pa.Table], Iterator[_Numbered]]
) -> Iterator[pa.Table]:
    """Read shards into tables of one row per batch, which Ray cannot split."""
    for numbered in read(table):
        yield _packed(*numbered)


def _packed(shard: int, index: int, decoded: Decoded) -> pa.Table:
    pixels = [image.numpy().reshape(-1) for image in decoded.images if image is not None]
    shapes = [() if image is None else tuple(image.shape) for image in decoded.images]
    data = pa.py_buffer(np.concatenate(pixels) if pixels else b"")
    offsets = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pa.table(
        {
            "shard": [shard],
            "index": [index],
            "paths": pa.array([[*map(os.fsencode, decoded.paths)]], pa.list_(pa.binary())),
            "errors": pa.array([decoded.errors], pa.list_(pa.string())),
            "resized": pa.array([decoded.resized], pa.list_(pa.bool_())),
            "notes": pa.array([decoded.notes], pa.list_(pa.string())),
            "shapes": pa.array([shapes], pa.list_(pa.list_(pa.int64()))),
            # Stored in the object store as it is: actors read it without a copy.
            "pixels": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data]),
        }
    )


def _unpacked(table: pa.Table) -> Iterator[_Numbered]:
    """Yield the batch in a row of `_packed`; its images are views of the row."""
    (row,) = table.drop_columns("pixels").to_pylist()
    flat = np.frombuffer(table.column("pixels")[0].as_buffer(), np.uint8)
    images: list[torch.Tensor | None] = []
    first = 0
    for shape in row["shapes"]:
        size = int(np.prod(shape)) if shape else 0
        pixels = flat[first : first + size].reshape(shape) if shape else None
        images.append(None if pixels is None else torch.from_numpy(pixels))
        first += size
    texts = {name: tuple(row[name]) for name in ("errors", "resized", "notes")}
    decoded = Decoded(tuple(map(os.fsdecode, row["paths"])), tuple(images), **texts)
    yield row["shard"], row["index"], decoded


class _Predictor:
    """A model in an actor, built once.

    Args:
        settings: settings of the model for `build_model`.
        weights: weights by name, or a reference to them.
        decoded: turns the tables passed to the actor into batches.
        model: name of the model.
        device: `cpu` or `cuda`.
        draws: whether to draw explanations.
    """

    def __init__(
        self,
        settings: dict[str, object],
        weights: Any,
        decoded: Callable[[pa.Table], Iterator[_Numbered]],
        *,
        model: str,
        device: str,
        draws: bool,
    ):
        import ray

        keep_freed_memory()
        found = ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights
        network = as_classifier(build_model(settings), "The model is not a classifier.")
        network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in found.items()})
        self.network = network.eval().to(device)
        self.decoded = decoded
        self.model = model
        self.draw = draw if draws else None

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        with one_thread_each(), warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=".*not writable.*"
            )  # and they are not written to
            for shard, index, batch in self.decoded(table):
                rows, pictures = predict_batch(self.network, self.model, batch, self.draw)
                yield pa.table(
                    {
                        "shard": [shard],
                        "index": [index],
                        "rows": pa.array([_as_bytes(rows)], pa.large_binary()),
                        "indices": pa.array([list(pictures)], pa.list_(pa.int64())),
                        "pictures": pa.array(
                            [list(pictures.values())], pa.list_(pa.large_binary())
                        ),
                    }
                )


def _as_bytes(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


def _batch(row: dict[str, Any]) -> Batch:
    rows = pa.ipc.open_stream(row["rows"]).read_all()
    pictures = dict(zip(row["indices"], row["pictures"], strict=True))
    return Batch(int(row["shard"]), int(row["index"]), rows, pictures)
