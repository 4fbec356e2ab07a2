"""Decoding of images in batches, in which an unreadable image keeps its position."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.images import threads
from foveal.images.sizing import Sizing
from foveal.images.sources import Item, sources_of

_SMALL_BYTES = 4_096  # smaller files are decoded faster by one thread than by two
_SAMPLE_FILES = 32  # files from which the median size of all files is estimated


@dataclass(frozen=True)
class Shape:
    """Shape of the images that a model expects."""

    size: Sizing | None  # size in pixels; None if the model accepts any size
    channels: int


@dataclass(frozen=True)
class Decoded:
    """One batch of N decoded images.

    Attributes:
        paths: path of each image.
        images: (C, H, W), uint8. An image that could not be read is replaced by a black one of the
            model's size, so that the batch has one shape, or by None if the model accepts different
            sizes.
        errors: for each image, why it could not be read, or an empty string.
        resized: for each image, whether it was resized.
        notes: for each image, a note on how it was read, or an empty string.
    """

    paths: tuple[str, ...]
    images: tuple[Tensor | None, ...]
    errors: tuple[str, ...]
    resized: tuple[bool, ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Decoding:
    """A batch that threads are decoding; `result` waits for it and may be called once."""

    batch: threads.Pending
    shape: Shape

    def result(self) -> Decoded:
        """Wait for the threads, and return the decoded batch."""
        return Decoded(self.batch.names, *zip(*map(self._row, self.batch), strict=True))

    def _row(self, outcome: threads.Result) -> tuple[Tensor | None, str, bool, str]:
        """Return an image, its error, whether it was resized, and its note."""
        size = self.shape.size
        if not isinstance(outcome, UserError):
            resized = size is not None and outcome.size != tuple(outcome.image.shape[-2:])
            return outcome.image, "", resized, outcome.note
        black = None
        if isinstance(size, tuple):
            black = torch.zeros(self.shape.channels, *size, dtype=torch.uint8)
        return black, printable(str(outcome)), False, ""


def reader_count(items: Sequence[Item], limit: int) -> int:
    """Return the number of threads that should read and decode images, at most `limit`.

    Small files are decoded by one thread, because decoding them mostly holds Python's global lock:
    one thread decodes JPEGs of 32x32 pixels a quarter faster than two threads, and those of 128x128
    pixels a fifth slower. Remote images and rows of Parquet files are decoded by all threads,
    because reading them may wait for a network.

    Args:
        items: images of one source, in order.
        limit: maximum number of threads, such as the number of CPUs.
    """
    sizes = []
    for item in items[:_SAMPLE_FILES]:
        with suppress(OSError):  # deleted, or not a local file
            sizes.append(os.path.getsize(item.path) if item.row is None else _SMALL_BYTES)
    return 1 if sizes and median(sizes) < _SMALL_BYTES else limit


def decode_ahead(
    items: Sequence[Item], batch_size: int, shape: Shape, pool: ThreadPoolExecutor
) -> Iterator[Decoding]:
    """Yield the batches of a shard, which the threads of a pool decode.

    A batch is submitted to the pool when the iterator reaches it. Rows of Parquet files are read by
    the thread that iterates, files by the threads of the pool.
    """
    size, channels = shape.size, shape.channels
    for batch in threads.decode_ahead(sources_of(items), batch_size, size, channels, pool):
        yield Decoding(batch, shape)
