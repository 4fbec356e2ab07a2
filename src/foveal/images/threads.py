"""Decoding of images by threads before they are used, in order; a bad image yields its error."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from foveal.foundation.errors import UserError
from foveal.images.reading import DecodedImage, decode, without_warnings
from foveal.images.sizing import Sizing
from foveal.images.sources import Source

# Images per task of a thread: starting a task costs more than decoding a tiny image.
_BLOCK = 16
_MAX_PENDING = 16 * _BLOCK  # maximum number of images that are decoded but not yet used
Result = DecodedImage | UserError  # an image, or the reason why it could not be read


class Pending:
    """A batch of images that threads are decoding.

    Iterating waits for the images and yields each of them, or its error, once and in order.

    Args:
        sources: N images.
        size: size to which the images are resized; None keeps their sizes.
        channels: 1 for greyscale, 3 for colour, None for those of each image.
        pool: threads that decode.

    Attributes:
        names: names of the N images, for display.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        size: Sizing | None,
        channels: int | None,
        pool: ThreadPoolExecutor,
    ):
        self.names = tuple(name for name, _ in sources)
        blocks = (sources[first : first + _BLOCK] for first in range(0, len(sources), _BLOCK))
        self._blocks: deque[Future[list[Result]]] = deque(
            pool.submit(_decode_block, block, size, channels) for block in blocks
        )

    def __iter__(self) -> Iterator[Result]:
        while self._blocks:
            yield from self._blocks.popleft().result()


def decode_ahead(
    sources: Iterable[Source],
    batch_size: int,
    size: Sizing | None,
    channels: int | None,
    pool: ThreadPoolExecutor,
) -> Iterator[Pending]:
    """Yield batches of images; a batch is submitted to the pool when it is requested.

    To decode ahead, request a batch before the previous one is used.

    Args:
        sources: for each image, a name for display and a function that returns the file's bytes.
        batch_size: images per batch; the last may have fewer.
        size: size to which the images are resized; None keeps their sizes.
        channels: 1 for greyscale, 3 for colour, None for those of each image.
        pool: threads; the caller suppresses Pillow's warnings (`without_warnings`).
    """
    remaining = iter(sources)
    while batch := list(islice(remaining, batch_size)):
        yield Pending(batch, size, channels, pool)


def decode_images(
    sources: Iterable[Source], size: Sizing | None, channels: int | None
) -> Iterator[Result]:
    """Yield each decoded image, or the error of an unreadable one, in order.

    The arguments are those of `decode_ahead`.
    """
    # Warning filters are global to the process, so they are set once, around all threads.
    with without_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
        for batch in decode_ahead(sources, _MAX_PENDING, size, channels, pool):
            yield from batch


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def _decode_block(
    sources: Sequence[Source], size: Sizing | None, channels: int | None
) -> list[Result]:
    return [_decode_one(source, size, channels) for source in sources]


def _decode_one(source: Source, size: Sizing | None, channels: int | None) -> Result:
    _, read = source
    try:
        return decode(read(), size, channels)
    except UserError as error:
        reason = str(error)
    except Exception as error:  # the system and clients of object stores raise many types
        text = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((text or str(error)).split())[:200] or type(error).__name__
    # The original error is not returned, since its traceback would keep the file's bytes in memory.
    return UserError(reason)
