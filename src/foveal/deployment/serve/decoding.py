"""Decoding of clients' images in separate processes, which are replaced when they fail."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Coroutine
from typing import TypeVar

import numpy as np

from foveal.deployment.serve.decoder import READY, REQUEST, RESPONSE, SHAPE
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Refused
from foveal.models import Inputs

# numpy reserves memory for each of its threads, and decoding needs only one.
_ENVIRONMENT = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
T = TypeVar("T")
_CRASH_ERRORS = (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError)


class Decoders:
    """A pool of decoding processes; a process that crashes or hangs is replaced.

    Args:
        limits: limits on pixels and seconds.
        count: number of processes.
    """

    def __init__(self, limits: Limits, count: int):
        self.limits = limits
        self.count = count
        self._free: asyncio.Queue[Process] = asyncio.Queue()
        # Decodings and replacements that are running. They continue when a request is cancelled.
        self._running: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        """Start the processes."""
        await asyncio.gather(*(self._add_decoder() for _ in range(self.count)))

    async def stop(self) -> None:
        """Stop the processes."""
        for task in self._running:
            task.cancel()
        while not self._free.empty():
            await _kill(self._free.get_nowait())

    async def _add_decoder(self) -> None:
        self._free.put_nowait(await _spawn_decoder())

    async def _replace(self, process: Process) -> None:
        await _kill(process)
        await self._add_decoder()

    def _replace_in_background(self, process: Process) -> None:
        """Replace a process, without waiting for the new one."""
        self._track(self._replace(process))

    def _track(self, work: Coroutine[object, None, T]) -> asyncio.Task[T]:
        """Run work as a task, and keep a reference to the task until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio would log an exception that nobody retrieves

    async def decode(
        self, data: bytes, channels: int, inputs: Inputs, *, crop: bool, max_side: int
    ) -> np.ndarray:
        """Return an image (C, H, W), uint8, resized to the size that a model expects.

        Args:
            data: content of the file.
            channels: number of channels C.
            inputs: the images that the model expects.
            crop: whether to crop an image of a different aspect ratio at its centre, instead of
                stretching it.
            max_side: maximum longer side in pixels, for a model that accepts any size.

        Raises:
            Refused: the image has an unsupported format, is broken or too large, or takes too long.
        """
        height, width = inputs.size or (0, 0)
        limits = self.limits
        options = (height, width, inputs.short_side or 0, channels, limits.pixels, max_side, crop)
        while (process := await self._free.get()).returncode is not None:
            self._replace_in_background(process)  # it died while idle
        # Shielded from the cancellation of the request, after which the process would have to be
        # replaced, which takes longer than the decoding.
        decoding = self._track(self._decode_with(process, REQUEST.pack(len(data), *options) + data))
        is_decoded, body = await asyncio.shield(decoding)
        if not is_decoded:
            raise Refused(422, f"The image cannot be read: {body.decode()}.")
        shape = SHAPE.unpack_from(body)
        return np.frombuffer(body, np.uint8, offset=SHAPE.size).reshape(shape)

    async def _decode_with(self, process: Process, request: bytes) -> tuple[bool, bytes]:
        """Return the response of a process, which is then free again, or replaced if it failed.

        Returns:
            Whether the image was decoded; and its shape and pixels, or the error.
        """
        try:
            async with asyncio.timeout(self.limits.decode_seconds):
                response = await _send(process, request)
        except TimeoutError:
            self._replace_in_background(process)
            raise Refused(422, "The image takes too long to decode.") from None
        except _CRASH_ERRORS:
            self._replace_in_background(process)
            raise Refused(422, "The image cannot be decoded: it crashed the decoder.") from None
        except asyncio.CancelledError:  # the server is stopping
            await _kill(process)
            raise
        self._free.put_nowait(process)
        return response


async def _spawn_decoder() -> Process:
    """Start a decoding process and wait until it is ready."""
    # -P: modules in the working folder are not imported.
    command = (sys.executable, "-P", "-m", "foveal.deployment.serve.decoder")
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=_ENVIRONMENT
    )
    try:
        assert process.stdout is not None
        await process.stdout.readexactly(len(READY))
    except BaseException:  # the server is stopping
        await _kill(process)
        raise
    return process


async def _send(process: Process, request: bytes) -> tuple[bool, bytes]:
    """Send a request to a process, and return whether the image was decoded, and the result."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request)
    except RuntimeError:  # raised by uvloop for a closed pipe
        raise BrokenPipeError from None
    await process.stdin.drain()
    is_decoded, length = RESPONSE.unpack(await process.stdout.readexactly(RESPONSE.size))
    return is_decoded, await process.stdout.readexactly(length)


async def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
