"""Images decoded for a model, a batch at a time; a bad one keeps its place."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from statistics import median

import torch
from torch import Tensor

from foveal.batch.fetching import sources_of
from foveal.batch.source import Item
from foveal.data.decoding import Source
from foveal.errors import UserError
from foveal.escaping import printable
from foveal.images.reading import decode
from foveal.images.sizing import Sizing

_BLOCK = 16  # images that a thread decodes in one go
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


class Decoding:
    """A batch that threads are at work on; `result` waits for it."""

    def __init__(self, blocks: list["Future[Decoded]"]):
        self._blocks = blocks

    def result(self) -> Decoded:
        """Return the whole batch."""
        parts = [block.result() for block in self._blocks]
        return Decoded(
            *(
                sum((getattr(part, name) for part in parts), ())
                for name in ("paths", "images", "errors", "resized", "notes")
            )
        )


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
    sources = sources_of(items)
    while batch := list(islice(sources, batch_size)):
        blocks = [batch[first : first + _BLOCK] for first in range(0, len(batch), _BLOCK)]
        yield Decoding([pool.submit(_block, block, shape) for block in blocks])


def _block(sources: Sequence[Source], shape: Shape) -> Decoded:
    paths = tuple(path for path, _ in sources)
    found = zip(*(_one(source, shape) for source in sources), strict=True)
    return Decoded(paths, *found)


def _one(source: Source, shape: Shape) -> tuple[Tensor | None, str, bool, str]:
    """Return the image, why it could not be read, whether it was resized, and a note."""
    _, read = source
    try:
        image, before, note = decode(read(), shape.size, shape.channels)
    except FileNotFoundError:
        reason = "there is no such file"
    except UserError as error:
        reason = str(error)
    except Exception as error:  # the system's, or whatever an object store's client raises
        text = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((text or str(error)).split())[:200] or type(error).__name__
    else:
        resized = shape.size is not None and before != (image.shape[-2], image.shape[-1])
        return image, "", resized, note
    blank = None
    if isinstance(shape.size, tuple):
        blank = torch.zeros(shape.channels, *shape.size, dtype=torch.uint8)
    return blank, printable(reason), False, ""
