"""The Ray engine: prediction on a Ray cluster.

Ray Data distributes the shards (groups of consecutive images) to actors, which are processes that
hold the model. On CPUs an actor also reads and decodes its shard, and pixels never leave its
process. If the actors use GPUs, other processes, called readers, decode the images on all CPUs, and
the pixels pass to the actors through Ray's object store.
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

# Readers request no CPU; instead, their number is limited. If they requested CPUs, the actors could
# reserve all CPUs and block the readers forever. If each actor requested a whole CPU, this would
# happen on a small cluster; with half a CPU per actor, it would happen when nodes die and their
# actors restart on the remaining nodes.
_READER_CPUS, _ACTOR_CPUS = 0, 0.5
_READER_THREADS = 4  # per reader; they mostly wait for a disk or an object store
_BATCHES_AHEAD = 2  # batches decoded while one is predicted
_QUIET_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; it warns if this is unset
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
_CONNECT_SECONDS = 10  # timeout of the test whether a cluster can be reached


@contextmanager
def cluster_connection(address: str | None = None) -> Iterator[None]:
    """Connect to a Ray cluster while the block runs.

    Args:
        address: address of the cluster, `auto` or `HOST:PORT`. Default: RAY_ADDRESS if set,
            else a local cluster.

    Raises:
        UserError: Ray is not installed, the cluster cannot be reached, or it fails.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise missing_extra("ray", "ray") from None
    owns_connection = not ray.is_initialized()
    if owns_connection:
        _connect(address)
    try:
        with terminable():  # replaces the handler of SIGTERM that Ray has installed
            yield
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The Ray cluster failed: {reason} Finished shards are kept; continue with --resume."
        ) from error
    finally:
        if owns_connection:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray

    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Without an address, Ray would join the last cluster started on this machine.
    address = address or os.environ.get("RAY_ADDRESS")
    if address and ":" in address and "://" not in address:
        _check_reachable(address)
    init = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address:
            init(address=address)
        else:
            init(address="local", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"Cannot reach the Ray cluster {address or ''}: {reason}") from None


def _check_reachable(address: str) -> None:
    """Raise a UserError if nothing listens at HOST:PORT; Ray itself would wait for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(
            f"No Ray cluster responds at {address} ({error}): start one with `ray start --head`, "
            "or omit --address to use only this machine."
        ) from None


def predict_on_ray(
    network: ImageModel, job: Job, shards: Iterable[int], *, readers: bool | None = None
) -> Iterator[Batch]:
    """Yield the predicted batches of shards, in order of completion.

    Ray restarts readers and actors that fail, and if a node fails, recomputes its data on the
    remaining nodes. Batches that have been yielded are not lost.

    Args:
        network: in evaluation mode, on the CPU; each actor gets a copy of it.
        job: the job to run.
        shards: indices of the shards to predict.
        readers: whether separate readers decode the images. Default: only for GPUs.

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
    if readers is None:
        readers = device == "cuda"
    if readers:
        data = _read_separately(data, read, cpus)
    batches = data.map_batches(
        _Predictor,
        fn_constructor_args=(network.settings(), ray.put(weights), _unpack if readers else read),
        fn_constructor_kwargs={"model": job.model, "device": device, "explain": job.explain},
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=_ACTOR_CPUS,
        num_gpus=int(device == "cuda"),
    )
    yield from map(_to_batch, batches.iter_rows())


def _quiet_ray_data() -> None:
    """Turn off Ray Data's progress bars and messages, because `predict` shows its own progress."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _resources(job: Job) -> tuple[str, int, int]:
    """Return the device of a job, the number of CPUs of the cluster, and the number of actors.

    Raises:
        UserError: the device is `cuda`, but the cluster has no GPU.
    """
    import ray

    cpus, gpus = (int(ray.cluster_resources().get(resource, 0)) for resource in ("CPU", "GPU"))
    if job.device == "cuda" and not gpus:
        raise UserError("The Ray cluster has no GPU: give --device cpu.")
    device = "cuda" if gpus and job.device != "cpu" else "cpu"
    return device, cpus, job.workers or max(1, cpus if device == "cpu" else gpus)


def _shard_row(job: Job, shard: int) -> pa.Table:
    """Return the listing of a shard as a table.

    The table has only one row, whose columns hold lists, because Ray may send rows to different
    processes. `parquet_rows` holds the row of each image in its Parquet file, or None.
    """
    items = job.listing.items(shard)
    return pa.table(
        {
            "shard": [shard],
            "paths": pa.array([[os.fsencode(item.path) for item in items]], pa.list_(pa.binary())),
            "parquet_rows": pa.array([[item.row for item in items]], pa.list_(pa.int64())),
        }
    )


# The index of a shard, the index of a batch in that shard, and the decoded batch.
_NumberedBatch = tuple[int, int, Decoded]


def _read(table: pa.Table, shape: Shape, batch_size: int) -> Iterator[_NumberedBatch]:
    """Read and decode the shards in a table of `_shard_row`, a few batches ahead of the model."""
    for shard in table.to_pylist():
        items = [
            Item(os.fsdecode(path), parquet_row)
            for path, parquet_row in zip(shard["paths"], shard["parquet_rows"], strict=True)
        ]
        threads = reader_count(items, _READER_THREADS)
        with without_warnings(), ThreadPoolExecutor(threads) as pool:
            decodings = decode_ahead(items, batch_size, shape, pool)
            # Advancing `decodings` starts the decoding of one more batch.
            waiting = deque(islice(decodings, _BATCHES_AHEAD))
            for index in count():
                waiting.extend(islice(decodings, 1))
                if not waiting:
                    break
                yield shard["shard"], index, waiting.popleft().result()


def _read_separately(
    data: "Dataset", read: Callable[[pa.Table], Iterator[_NumberedBatch]], cpus: int
) -> "Dataset":
    """Return a dataset of batches, decoded by separate readers."""
    return data.map_batches(
        partial(_read_packed, read=read),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=_READER_CPUS,
        concurrency=max(1, cpus),
    )


def _read_packed(
    table: pa.Table, read: Callable[[pa.Table], Iterator[_NumberedBatch]]
) -> Iterator[pa.Table]:
    """Yield each decoded batch of shards as a table of one row, as `_shard_row` does for shards."""
    for batch in read(table):
        yield _pack(*batch)


def _pack(shard: int, index: int, decoded: Decoded) -> pa.Table:
    """Return a decoded batch as a table of one row, which `_unpack` reads."""
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
            # One buffer in the object store, which actors read without a copy.
            "pixels": pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data]),
        }
    )


def _unpack(table: pa.Table) -> Iterator[_NumberedBatch]:
    """Yield the batch in a table from `_pack`; its images are views of the table's memory."""
    (row,) = table.drop_columns("pixels").to_pylist()
    (pixel_buffer,) = table.column("pixels")
    all_pixels = np.frombuffer(pixel_buffer.as_buffer(), np.uint8)
    images: list[torch.Tensor | None] = []
    offset = 0
    for shape in row["shapes"]:
        size = int(np.prod(shape)) if shape else 0
        pixels = all_pixels[offset : offset + size].reshape(shape) if shape else None
        images.append(None if pixels is None else torch.from_numpy(pixels))
        offset += size
    fields = {name: tuple(row[name]) for name in ("errors", "resized", "notes")}
    decoded = Decoded(tuple(map(os.fsdecode, row["paths"])), tuple(images), **fields)
    yield row["shard"], row["index"], decoded


class _Predictor:
    """The model of an actor, which is built once and then predicts all batches of the actor.

    Args:
        settings: settings of the model for `build_model`.
        weights: weights by name, or a reference to them.
        to_batches: converts an input table to batches: `_read` or `_unpack`.
        model: name of the model, which is written into each row of the output.
        device: `cpu` or `cuda`.
        explain: whether to draw the explanations.
    """

    def __init__(
        self,
        settings: dict[str, object],
        weights: Any,
        to_batches: Callable[[pa.Table], Iterator[_NumberedBatch]],
        *,
        model: str,
        device: str,
        explain: bool,
    ):
        import ray

        keep_freed_memory()  # makes prediction on a CPU faster
        arrays = ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights
        network = as_classifier(build_model(settings), "The model is not a classifier.")
        network.load_state_dict(
            {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        )
        self.network = network.eval().to(device)
        self.to_batches = to_batches
        self.model = model
        self.draw_function = draw if explain else None

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Yield the predictions for each batch as a table of one row, which `_to_batch` reads."""
        with one_thread_each(), warnings.catch_warnings():
            # Views of the object store are read-only, and the model does not write to them.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            for shard, index, batch in self.to_batches(table):
                rows, pictures = predict_batch(self.network, self.model, batch, self.draw_function)
                yield pa.table(
                    {
                        "shard": [shard],
                        "index": [index],
                        "rows": pa.array([_as_bytes(rows)], pa.large_binary()),
                        "picture_rows": pa.array([list(pictures)], pa.list_(pa.int64())),
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


def _to_batch(row: dict[str, Any]) -> Batch:
    """Return the batch in a row of a table that `_Predictor` has yielded."""
    rows = pa.ipc.open_stream(row["rows"]).read_all()
    pictures = dict(zip(row["picture_rows"], row["pictures"], strict=True))
    return Batch(int(row["shard"]), int(row["index"]), rows, pictures)
