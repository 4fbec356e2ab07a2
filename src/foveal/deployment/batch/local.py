"""The local engine: one process with threads that decode ahead of the model."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import torch

from foveal.deployment.batch.decoding import Decoding, decode_ahead, reader_count
from foveal.deployment.batch.job import Batch, Job
from foveal.deployment.batch.rows import draw, predict_batch
from foveal.foundation.errors import UserError
from foveal.images.reading import without_warnings
from foveal.images.threads import cpu_count
from foveal.models import ImageModel

_GPU_WORKERS = 2  # one batch is copied while the other is predicted
_STORE_THREADS = 32  # readers of an object store; they mostly wait


def predict_locally(network: ImageModel, job: Job, shards: Iterable[int]) -> Iterator[Batch]:
    """Yield the predicted batches of shards in order, with a few batches in memory.

    On CPUs each batch is predicted by one thread, and batches are predicted in parallel. That is
    faster than all threads on one batch, and gives the same bits on any machine of the same kind,
    including the workers of a cluster.

    Args:
        network: in evaluation mode, on the CPU.
        job: the job to run.
        shards: indices of the shards to predict.

    Raises:
        UserError: the device is `cuda`, but there is no GPU.
    """
    cpus, device = cpu_count(), _device(job.device)
    workers = job.workers or (cpus if device == "cpu" else _GPU_WORKERS)
    network = network.to(device)
    max_waiting = 2 * workers
    waiting: deque[Future[Batch]] = deque()
    items = job.listing.items(0)
    remote = any("://" in item.path for item in items[:1])
    max_readers = _STORE_THREADS if remote else cpus
    with (
        without_warnings(),
        one_thread_each(),
        ThreadPoolExecutor(reader_count(items, max_readers)) as readers,
        ThreadPoolExecutor(workers) as models,
    ):
        try:
            for shard, index, decoding in _decodings(job, shards, readers):
                waiting.append(models.submit(partial(_run, network, job), shard, index, decoding))
                if len(waiting) > max_waiting:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for pool in (models, readers):
                pool.shutdown(wait=False, cancel_futures=True)


def _decodings(
    job: Job, shards: Iterable[int], readers: ThreadPoolExecutor
) -> Iterator[tuple[int, int, Decoding]]:
    for shard in shards:
        items = job.listing.items(shard)
        decodings = decode_ahead(items, job.batch_size, job.shape, readers)
        for index, decoding in enumerate(decodings):
            yield shard, index, decoding


def _run(network: ImageModel, job: Job, shard: int, index: int, decoding: Decoding) -> Batch:
    draw_function = draw if job.explain else None
    return Batch(shard, index, *predict_batch(network, job.model, decoding.result(), draw_function))


def _device(device: str) -> str:
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UserError("PyTorch finds no GPU on this machine: give --device cpu.")
    return device if device != "auto" else "cuda" if cuda else "cpu"


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit torch to one thread per batch while the block runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
