"""Images that clients send -> pixels, decoded by processes that may die of it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from typing import TypeVar

import numpy as np

from foveal.deployment.serve.decoder import ANSWER, READY, REQUEST, SHAPE
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Refused
from foveal.models import Inputs

# numpy reserves memory for each of its threads, of which none is needed here.
_ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
Done = TypeVar("Done")
_DIED = (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError)


class Decoders:
    """A few processes that decode, each replaced when an image ends it.

    Args:
        limits: on pixels and seconds.
        count: of processes.
    """

    def __init__(self, limits: Limits, count: int):
        self.limits = limits
        self.count = count
        self._free: asyncio.Queue[Process] = asyncio.Queue()
        self._running: set[asyncio.Task[object]] = set()  # decodes and replaces, beside requests

    async def start(self) -> None:
        """Start the processes."""
        await asyncio.gather(*(self._add() for _ in range(self.count)))

    async def stop(self) -> None:
        """End the processes."""
        for task in self._running:
            task.cancel()
        while not self._free.empty():
            await _end(self._free.get_nowait())

    async def _add(self) -> None:
        self._free.put_nowait(await _start())

    async def _replace(self, process: Process) -> None:
        await _end(process)
        await self._add()

    def _give_up(self, process: Process) -> None:
        """End a process and start another, while whoever asked it hears of it."""
        self._start(self._replace(process))

    def _start(self, work: Coroutine[object, None, Done]) -> asyncio.Task[Done]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # heard by the request, unless that is gone

    async def decode(
        self, data: bytes, channels: int, inputs: Inputs, crop: bool, side: int
    ) -> np.ndarray:
        """Return an image as bytes (C, H, W), of a model's size.

        Args:
            data: of the file.
            channels: C.
            inputs: of the model.
            crop: cut the middle out of an image of another shape.
            side: pixels along the longer side at most, for a model of no size.

        Raises:
            Refused: not an image that is read, broken, too large, or too slow to decode.
        """
        height, width = inputs.size or (0, 0)
        limits = self.limits
        wanted = (height, width, inputs.short_side or 0, channels, limits.pixels, side, crop)
        while (process := await self._free.get()).returncode is not None:
            self._give_up(process)  # it died while nobody asked it
        # A request that is given up meanwhile does not end the process: to replace it takes long.
        asked = self._start(self._decode_by(process, REQUEST.pack(len(data), *wanted) + data))
        decoded, body = await asyncio.shield(asked)
        if not decoded:
            raise Refused(422, f"The image is not read: {body.decode()}.")
        shape = SHAPE.unpack_from(body)
        return np.frombuffer(body, np.uint8, offset=SHAPE.size).reshape(shape)

    async def _decode_by(self, process: Process, request: bytes) -> tuple[bool, bytes]:
        """Return a process' answer, and free the process or replace it."""
        try:
            async with asyncio.timeout(self.limits.decode_seconds):
                answer = await _ask(process, request)
        except TimeoutError:
            self._give_up(process)
            raise Refused(422, "The image takes too long to decode.") from None
        except _DIED:
            self._give_up(process)
            raise Refused(422, "The image cannot be decoded: it ended the decoder.") from None
        except asyncio.CancelledError:  # the server ends
            await _end(process)
            raise
        self._free.put_nowait(process)
        return answer


async def _start() -> Process:
    command = (sys.executable, "-P", "-m", "foveal.deployment.serve.decoder")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=_ENVIRONMENT
    )
    try:
        assert process.stdout is not None
        await process.stdout.readexactly(len(READY))
    except BaseException:  # the server ends
        await _end(process)
        raise
    return process


async def _ask(process: Process, request: bytes) -> tuple[bool, bytes]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
    except RuntimeError:  # what uvloop says of a pipe that is closed
        raise BrokenPipeError from None
    await process.stdin.drain()
    decoded, length = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
    return decoded, await process.stdout.readexactly(length)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
