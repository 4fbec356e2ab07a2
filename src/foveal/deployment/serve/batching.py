"""Dynamic batching: a bounded queue feeding one inference thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from foveal.deployment.serve.inference import Result, Task
from foveal.deployment.serve.refusal import Refused, busy

MAX_IMAGES = 32  # images per forward pass; more gain little and delay the first
# Values in all images of a batch, about six photographs of 224x224 pixels. Activations take a
# hundred times that memory, and larger batches of photographs are no faster on one thread.
MAX_VALUES = 1_000_000

RunBatch = Callable[[list[Task]], list[Result | Refused]]
Pending = tuple[Task, asyncio.Future[Result]]


class BatchQueue:
    """A queue of tasks and the thread that runs them; plain tasks of one model run in batches.

    A task never waits for others: the next batch holds those that arrived during the last one.

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
        """Run tasks and return their results.

        Raises:
            Refused: too many tasks are waiting, or the model cannot process them.
        """
        if len(self._waiting) + len(tasks) > self.limit:
            raise busy(f"{len(self._waiting)} images are waiting already.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in tasks]
        self._waiting.extend(zip(tasks, futures, strict=True))
        if self._runner is None:
            self._runner = loop.create_task(self._run_batches())
        return await asyncio.gather(*futures)

    async def _run_batches(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next_batch():
                tasks = [task for task, _ in batch]
                try:
                    results = await loop.run_in_executor(self._thread, self.run_batch, tasks)
                except Exception as error:
                    _fail(batch, error)
                    continue
                for (_, future), result in zip(batch, results, strict=True):
                    _settle(future, result)
        finally:
            self._runner = None

    def _next_batch(self) -> list[Pending]:
        """Take the first waiting task, and those behind it that fit into its batch."""
        while self._waiting and self._waiting[0][1].done():  # its request was cancelled
            self._waiting.popleft()
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        first = batch[0][0]
        max_size = min(MAX_IMAGES, MAX_VALUES // first.image.size)
        while first.plain and self._waiting and len(batch) < max_size:
            task = self._waiting[0][0]
            same = task.served is first.served and task.image.shape == first.image.shape
            if not (task.plain and same):
                break
            batch.append(self._waiting.popleft())
        return batch

    def stop(self) -> None:
        """Stop the thread after its current batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _settle(future: asyncio.Future[Result], result: Result | Refused) -> None:
    if future.done():
        return
    if isinstance(result, Refused):
        future.set_exception(result)
    else:
        future.set_result(result)


def _fail(batch: list[Pending], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
