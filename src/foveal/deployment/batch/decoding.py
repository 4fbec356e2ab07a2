"""Images decoded for a model, a batch at a time; a bad one keeps its place."""

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

_SMALL = 4_096  # bytes of a file below which one thread decodes faster than two
_SAMPLE = 32  # files that tell how large the others are


@dataclass(frozen=True)
class Shape:
    """What images a model takes: their size in pixels, or None for any, and their channels."""

    size: Sizing | None
    channels: int


@dataclass(frozen=True)
class Decoded:
    """One batch of images.

    Attributes:
        paths: N.
        images: N of (C, H, W) bytes; of one that could not be read, black where the size is known
            and else None. So what batch an image is predicted in does not depend on others.
        errors: N; why an image could not be read, or empty.
        resized: N; whether an image had another size.
        notes: N; what to know of how an image was read, or empty.
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
    """A batch that threads are at work on; `result` waits for it, once."""

    batch: threads.Pending
    shape: Shape

    def result(self) -> Decoded:
        """Return the whole batch."""
        return Decoded(self.batch.names, *zip(*map(self._row, self.batch), strict=True))

    def _row(self, found: threads.Found) -> tuple[Tensor | None, str, bool, str]:
        """Return the image, why it could not be read, whether it was resized, and a note."""
        size = self.shape.size
        if not isinstance(found, UserError):
            resized = size is not None and found.size != tuple(found.image.shape[-2:])
            return found.image, "", resized, found.note
        blank = None
        if isinstance(size, tuple):
            blank = torch.zeros(self.shape.channels, *size, dtype=torch.uint8)
        return blank, printable(str(found)), False, ""


def reader_count(items: Sequence[Item], most: int) -> int:
    """Return how many threads should read and decode images, at most `most`.

    Of a small file, most of the time goes by under Python's lock, which threads then only pass to
    and fro: JPEGs of 32x32 pixels were decoded a quarter faster by one thread than by two, those
    of 128x128 a fifth slower. What does not lie here as files may wait for a network, or in rows.

    Args:
        items: of one source, in their order.
        most: such as the number of CPUs.
    """
    sizes = []
    for item in items[:_SAMPLE]:
        with suppress(OSError):  # gone, or not here
            sizes.append(os.path.getsize(item.path) if item.row is None else _SMALL)
    return 1 if sizes and median(sizes) < _SMALL else most


def decode_ahead(
    items: Sequence[Item], batch_size: int, shape: Shape, pool: ThreadPoolExecutor
) -> Iterator[Decoding]:
    """Yield the batches of a shard, each handed to the threads of a pool when it is asked for.

    Rows of Parquet files are read by the caller's thread, files by those of the pool.
    """
    size, channels = shape.size, shape.channels
    for batch in threads.decode_ahead(sources_of(items), batch_size, size, channels, pool):
        yield Decoding(batch, shape)
