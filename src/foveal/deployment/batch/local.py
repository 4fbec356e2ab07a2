"""The local engine: prediction in one process, with threads that decode ahead of the model."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from foveal.deployment.batch.decoding import Decoding, decode_ahead, reader_count
from foveal.deployment.batch.job import Batch, Job
from foveal.deployment.batch.rows import draw, predict_batch
from foveal.foundation.errors import UserError
from foveal.images.reading import without_warnings
from foveal.images.threads import cpu_count
from foveal.models import ImageModel

_GPU_WORKERS = 2  # one batch is copied while the other is predicted
_STORE_THREADS = 32  # threads that read from an object store; they mostly wait


def predict_locally(network: ImageModel, job: Job, shards: Iterable[int]) -> Iterator[Batch]:
    """Yield the predicted batches of shards in order, with only a few batches in memory.

    On CPUs each batch is predicted by one thread, and several batches in parallel. This is faster
    than using all threads for one batch, and gives identical results on all machines of the same
    kind, including the workers of a cluster.

    Args:
        network: in evaluation mode, on the CPU.
        job: the job to run.
        shards: indices of the shards to predict.

    Raises:
        UserError: the device is `cuda`, but there is no GPU.
    """
    cpus = cpu_count()
    device = _device(job.device)
    workers = job.workers or (cpus if device == "cpu" else _GPU_WORKERS)
    network = network.to(device)
    max_waiting = 2 * workers
    waiting: deque[Future[Batch]] = deque()
    items = job.listing.items(0)  # the first shard, from which the others are assumed to be alike
    is_remote = any("://" in item.path for item in items[:1])
    max_readers = _STORE_THREADS if is_remote else cpus
    with (
        without_warnings(),
        one_thread_each(),
        ThreadPoolExecutor(reader_count(items, max_readers)) as reader_pool,
        ThreadPoolExecutor(workers) as model_pool,
    ):
        try:
            for shard, index, decoding in _decodings(job, shards, reader_pool):
                waiting.append(model_pool.submit(_run, network, job, shard, index, decoding))
                if len(waiting) > max_waiting:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for pool in (model_pool, reader_pool):
                pool.shutdown(wait=False, cancel_futures=True)


def _decodings(
    job: Job, shards: Iterable[int], reader_pool: ThreadPoolExecutor
) -> Iterator[tuple[int, int, Decoding]]:
    """Yield the index of the shard, the index of the batch in it, and the batch being decoded."""
    for shard in shards:
        items = job.listing.items(shard)
        decodings = decode_ahead(items, job.batch_size, job.shape, reader_pool)
        for index, decoding in enumerate(decodings):
            yield shard, index, decoding


def _run(network: ImageModel, job: Job, shard: int, index: int, decoding: Decoding) -> Batch:
    """Predict batch `index` of a shard, once it is decoded."""
    draw_function = draw if job.explain else None
    return Batch(shard, index, *predict_batch(network, job.model, decoding.result(), draw_function))


def _device(device: str) -> str:
    """Return `cpu` or `cuda` for the device of a job, which may also be `auto`."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("PyTorch finds no GPU on this machine: give --device cpu.")
    if device != "auto":
        return device
    return "cuda" if has_gpu else "cpu"


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit PyTorch to one thread per forward pass while the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
