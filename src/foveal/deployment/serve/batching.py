"""Dynamic batching: a bounded queue feeding one inference thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from foveal.deployment.serve.inference import Result, Task
from foveal.deployment.serve.refusal import Refused, busy_error

MAX_IMAGES = 32  # images per forward pass; larger batches gain little and delay the first image
# Maximum number of values in all images of a batch, about six photographs of 224x224 pixels.
# Activations take a hundred times the memory of the images, and larger batches of photographs are
# no faster on one thread.
MAX_VALUES = 1_000_000

RunBatch = Callable[[list[Task]], list[Result | Refused]]  # returns one result per task, in order


class Pending(NamedTuple):
    """A task that waits to be run, and the future that will hold its result."""

    task: Task
    future: asyncio.Future[Result]


class BatchQueue:
    """A queue of tasks, and one thread that runs them in batches.

    Successive tasks for the same model and image shape are run as one batch, if they are batchable.
    The thread never waits for a batch to fill: when it is free, it takes the tasks that arrived in
    the meantime.

    Args:
        run_batch: runs a batch of tasks, in the queue's thread.
        limit: maximum number of waiting tasks; more are refused.
    """

    def __init__(self, run_batch: RunBatch, limit: int):
        self.run_batch = run_batch
        self.limit = limit
        self._waiting: deque[Pending] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foveal-inference")
        self._runner: asyncio.Task[None] | None = None

    async def run(self, tasks: list[Task]) -> list[Result]:
        """Run tasks and return their results, in order.

        Raises:
            Refused: too many tasks are waiting, or the model cannot process an image.
        """
        if len(self._waiting) + len(tasks) > self.limit:
            raise busy_error(f"{len(self._waiting)} images are waiting already.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in tasks]
        self._waiting.extend(map(Pending, tasks, futures))
        if self._runner is None:
            self._runner = loop.create_task(self._run_batches())
        return await asyncio.gather(*futures)

    async def _run_batches(self) -> None:
        """Run batches until no task waits; `run` then starts this again."""
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next_batch():
                tasks = [pending.task for pending in batch]
                try:
                    results = await loop.run_in_executor(self._thread, self.run_batch, tasks)
                except Exception as error:
                    _fail(batch, error)
                    continue
                for pending, result in zip(batch, results, strict=True):
                    _set_result(pending.future, result)
        finally:
            self._runner = None

    def _next_batch(self) -> list[Pending]:
        """Take the first waiting task, and those behind it that fit into its batch."""
        while self._waiting and self._waiting[0].future.done():  # its request was cancelled
            self._waiting.popleft()
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        first = batch[0].task
        value_count = first.image.size  # channels * height * width
        max_size = min(MAX_IMAGES, MAX_VALUES // value_count)
        while first.is_batchable and self._waiting and len(batch) < max_size:
            task = self._waiting[0].task
            fits = task.model is first.model and task.image.shape == first.image.shape
            if not (task.is_batchable and fits):
                break
            batch.append(self._waiting.popleft())
        return batch

    def stop(self) -> None:
        """Stop the thread after its current batch; tasks that still wait fail with RuntimeError."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _set_result(future: asyncio.Future[Result], result: Result | Refused) -> None:
    """Give a future its result or refusal, unless its request was cancelled."""
    if future.done():
        return
    if isinstance(result, Refused):
        future.set_exception(result)
    else:
        future.set_result(result)


def _fail(batch: list[Pending], error: Exception) -> None:
    """Give the futures of a batch an error, except those whose request was cancelled."""
    for pending in batch:
        if not pending.future.done():
            pending.future.set_exception(error)
