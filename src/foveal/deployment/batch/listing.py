"""The listing of a run's images, which is written at the start of the run and then fixed.

The listing is divided into shards: groups of consecutive images, each of which becomes one output
file.
"""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foveal.foundation.errors import UserError
from foveal.images.sources import Item

# Paths are stored as bytes, as they may not be UTF-8.
_SCHEMA = pa.schema([("path", pa.binary()), ("row", pa.int64())])


@dataclass(frozen=True)
class Listing:
    """A listing, stored as a Parquet file. Each shard is a row group, which can be read separately.

    Attributes:
        path: path of the file.
        metadata: footer of the file, which is read once for all shards.
    """

    path: Path
    metadata: pq.FileMetaData

    @classmethod
    def open(cls, path: Path) -> "Listing":
        """Return the listing in a file.

        Raises:
            UserError: the file is not a listing.
        """
        try:
            return cls(path, pq.read_metadata(path))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"Cannot read the listing {path}: {error}") from None

    def __len__(self) -> int:
        return int(self.metadata.num_rows)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of images in each shard."""
        groups = range(self.metadata.num_row_groups)
        return tuple(self.metadata.row_group(index).num_rows for index in groups)

    def items(self, shard: int) -> list[Item]:
        """Return the images of a shard, in order."""
        with pq.ParquetFile(self.path, metadata=self.metadata) as file:
            table = file.read_row_group(shard)
        columns = (table.column(name).to_pylist() for name in _SCHEMA.names)
        return [Item(os.fsdecode(path), row) for path, row in zip(*columns, strict=True)]


def write_listing(items: Iterable[Item], path: Path, shard_size: int) -> str:
    """Write a listing, holding one shard in memory at a time.

    Returns:
        The SHA-256 of the names of all images, in order.
    """
    digest = hashlib.sha256()
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        for chunk in _chunks(items, shard_size):
            for item in chunk:
                digest.update(os.fsencode(item.name) + b"\n")
            columns = [[os.fsencode(item.path) for item in chunk], [item.row for item in chunk]]
            writer.write_table(pa.table(columns, schema=_SCHEMA), row_group_size=len(chunk))
    return digest.hexdigest()


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, size)):
        yield chunk
