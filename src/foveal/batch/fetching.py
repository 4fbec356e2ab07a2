"""The bytes of images: files are read when asked for, rows of Parquet files one after the other."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from foveal.batch.files import open_file, read_file
from foveal.batch.source import Item
from foveal.data.decoding import Source
from foveal.data.parquet import IMAGE_COLUMNS, bytes_of, check_image_column
from foveal.errors import UserError

_ROWS = 64  # of a Parquet file, in memory at a time


def sources_of(items: Sequence[Item]) -> Iterator[Source]:
    """Yield, for each image, its path and a function that returns its bytes, or raises why not."""
    for path, group in itertools.groupby(items, key=lambda item: item.path):
        same = list(group)
        if same[0].row is None:
            reads: Iterator[Callable[[], bytes]] = (partial(_read, path) for _ in same)
        else:
            reads = _cells(path, [item.row or 0 for item in same])
        yield from zip((item.name for item in same), reads, strict=True)


def _read(path: str) -> bytes:
    if path.lower().endswith(".parquet"):
        raise UserError("not a Parquet file that can be read")
    return read_file(path)


def _cells(path: str, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield what returns the bytes of each of the rows, which are in ascending order."""
    given = 0
    try:
        for read in _stored(path, rows):
            yield read
            given += 1
        reason = "there is no such row any more"
    except Exception as error:  # Arrow's, the file system's or the store's
        reason = f"the Parquet file cannot be read: {' '.join(str(error).split())[:120]}"
    yield from (partial(_refuse, reason) for _ in rows[given:])


def _stored(path: str, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield as `_cells` does as far as the file goes."""
    import pyarrow.parquet as pq

    wanted = set(rows)
    with open_file(path) as file, pq.ParquetFile(file) as shard:
        column = next(name for name in IMAGE_COLUMNS if name in shard.schema_arrow.names)
        check_image_column(shard.schema_arrow.field(column))
        for number, cell in _from(shard, column, rows[0]):
            if number in wanted:
                yield partial(_content, cell)
            if number >= rows[-1]:
                return


def _from(shard: Any, column: str, first: int) -> Iterator[tuple[int, Any]]:
    """Yield number and cell of each row, from the row group on that holds the row `first`."""
    number, groups = 0, list(range(shard.metadata.num_row_groups))
    while groups and number + shard.metadata.row_group(groups[0]).num_rows <= first:
        number += shard.metadata.row_group(groups.pop(0)).num_rows
    for batch in shard.iter_batches(_ROWS, row_groups=groups, columns=[column]):
        for cell in batch.column(0):
            yield number, cell
            number += 1


def _content(cell: Any) -> bytes:
    return bytes_of(cell.as_py())


def _refuse(reason: str) -> bytes:
    raise UserError(reason)
