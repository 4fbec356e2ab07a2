"""One thread that answers, before it a bounded queue; what can go together goes together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from foveal.deployment.serve.inference import Answer, Task
from foveal.deployment.serve.refusal import Refused, busy

AT_ONCE = 32  # images in one forward pass: more gain little and delay the first
# Of all these images: six photographs of 224x224 pixels. What a net makes of them on its way takes
# a hundred times their memory, and photographs gain nothing from larger batches on one thread.
VALUES = 1_000_000

Answering = Callable[[list[Task]], list[Answer | Refused]]
Waiting = tuple[Task, asyncio.Future[Answer]]


class Lane:
    """Answers tasks one after another, or several plain ones of a model in one pass.

    A task never waits for others to come: what has gathered while the last pass ran is the next.

    Args:
        answer: called in the lane's thread.
        waiting: tasks that may wait; more are refused.
    """

    def __init__(self, answer: Answering, waiting: int):
        self.answer = answer
        self.limit = waiting
        self._waiting: deque[Waiting] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foveal-answer")
        self._running: asyncio.Task[None] | None = None

    async def ask(self, tasks: list[Task]) -> list[Answer]:
        """Return an answer to each task.

        Raises:
            Refused: too many wait already, or the model cannot answer.
        """
        if len(self._waiting) + len(tasks) > self.limit:
            raise busy(f"{len(self._waiting)} images wait already.")
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
        """Take the first that waits, and those behind it that can share its pass."""
        while self._waiting and self._waiting[0][1].done():  # its request is gone
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
        """End the thread when it is done with what it does."""
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
