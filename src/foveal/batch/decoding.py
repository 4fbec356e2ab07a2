"""Images decoded for a model, a batch at a time; a bad one keeps its place."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from foveal.batch.fetching import sources_of
from foveal.batch.source import Item
from foveal.data.decoding import Source
from foveal.data.reading import decode_sized
from foveal.errors import UserError

_BLOCK = 16  # images that a thread decodes in one go


@dataclass(frozen=True)
class Shape:
    """What images a model takes: height and width in pixels or None for any, and channels."""

    size: tuple[int, int] | None
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
    """

    paths: tuple[str, ...]
    images: tuple[Tensor | None, ...]
    errors: tuple[str, ...]
    resized: tuple[bool, ...]

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
                for name in ("paths", "images", "errors", "resized")
            )
        )


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
    images, errors, resized = zip(*(_one(source, shape) for source in sources), strict=True)
    return Decoded(paths, images, errors, resized)


def _one(source: Source, shape: Shape) -> tuple[Tensor | None, str, bool]:
    _, read = source
    try:
        image, before = decode_sized(read(), shape.size, shape.channels)
    except FileNotFoundError:
        reason = "there is no such file"
    except UserError as error:
        reason = str(error)
    except Exception as error:  # the system's, or whatever an object store's client raises
        text = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((text or str(error)).split())[:200] or type(error).__name__
    else:
        return image, "", shape.size is not None and before != shape.size
    blank = None
    if shape.size is not None:
        blank = torch.zeros(shape.channels, *shape.size, dtype=torch.uint8)
    return blank, reason, False
