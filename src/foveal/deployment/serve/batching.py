"""Dynamic batching: a bounded queue feeding one inference thread."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from foveal.deployment.serve.inference import Answer, Task
from foveal.deployment.serve.refusal import Refused, busy

AT_ONCE = 32  # images per forward pass: more gain little and delay the first
# Values of all images of a batch, such as six photographs of 224x224 pixels. Activations take a
# hundred times that memory, and photographs gain nothing from larger batches on one thread.
VALUES = 1_000_000

Answering = Callable[[list[Task]], list[Answer | Refused]]
Waiting = tuple[Task, asyncio.Future[Answer]]


class BatchQueue:
    """A queue of tasks and the thread that runs them, plain tasks of one model in batches.

    A task never waits for others to arrive: the next batch is what has arrived during the last.

    Args:
        answer: runs a batch of tasks, in the queue's thread.
        waiting: maximum number of waiting tasks; more are refused.
    """

    def __init__(self, answer: Answering, waiting: int):
        self.answer = answer
        self.limit = waiting
        self._waiting: deque[Waiting] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foveal-answer")
        self._running: asyncio.Task[None] | None = None

    async def ask(self, tasks: list[Task]) -> list[Answer]:
        """Run tasks and return their results.

        Raises:
            Refused: too many tasks are waiting, or the model cannot process them.
        """
        if len(self._waiting) + len(tasks) > self.limit:
            raise busy(f"{len(self._waiting)} images are waiting already.")
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in tasks]
        self._waiting.extend(zip(tasks, futures, strict=True))
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await asyncio.gather(*futures)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while batch := self._next():
                tasks = [task for task, _ in batch]
                try:
                    answers = await loop.run_in_executor(self._thread, self.answer, tasks)
                except Exception as error:
                    _fail(batch, error)
                    continue
                for (_, future), answer in zip(batch, answers, strict=True):
                    _settle(future, answer)
        finally:
            self._running = None

    def _next(self) -> list[Waiting]:
        """Take the first waiting task, and those behind it that fit its batch."""
        while self._waiting and self._waiting[0][1].done():  # its request was cancelled
            self._waiting.popleft()
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        first = batch[0][0]
        most = min(AT_ONCE, VALUES // first.image.size)
        while first.plain and self._waiting and len(batch) < most:
            task = self._waiting[0][0]
            same = task.served is first.served and task.image.shape == first.image.shape
            if not (task.plain and same):
                break
            batch.append(self._waiting.popleft())
        return batch

    def stop(self) -> None:
        """Stop the thread after its current batch."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _settle(future: asyncio.Future[Answer], answer: Answer | Refused) -> None:
    if future.done():
        return
    if isinstance(answer, Refused):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _fail(batch: list[Waiting], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
