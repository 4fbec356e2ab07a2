"""Images in the rows of Parquet files (shards), in the layout of Hugging Face's `datasets`.

Each cell of the column of images is a struct of the bytes of an image file and its path. Only the
bytes are read: a path in a table is never opened, because it could be that of any user file.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypedDict

from foveal.foundation.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

IMAGE_COLUMNS = ("image", "img")
_BATCH_ROWS = 64  # rows in memory at a time


def image_column(names: Collection[str]) -> str | None:
    """Return the name of a file's column of images, or None."""
    return next((name for name in IMAGE_COLUMNS if name in names), None)


def check_image_column(field: "pa.Field") -> None:
    """Check that a column contains the bytes of image files; text in it is never opened as a path.

    Args:
        field: field of an Arrow schema.

    Raises:
        UserError: the column is of another type.
    """
    import pyarrow as pa

    column_type = field.type
    bytes_type = column_type.field("bytes").type if _has_bytes(column_type) else None
    if bytes_type is None or not (
        pa.types.is_binary(bytes_type) or pa.types.is_large_binary(bytes_type)
    ):
        raise UserError(
            f"expected column {field.name!r} to hold structs of bytes and path (binary, string), "
            f"but got {column_type}: images are read from bytes only"
        )


def _has_bytes(column_type: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(column_type) and column_type.get_field_index("bytes") >= 0)


class Cell(TypedDict, total=False):
    """A cell of a column of images: the content of an image file, and its path or None."""

    bytes: bytes | None
    path: str | None


def bytes_of(cell: Cell | None) -> bytes:
    """Return the content of the image file in a cell of a column of images.

    Raises:
        UserError: the cell has no content.
    """
    cell = cell or {}
    content = cell.get("bytes")
    if not content:
        raise UserError(
            "the row has a path but no bytes: images are read from bytes only"
            if cell.get("path")
            else "the row contains no image"
        )
    return bytes(content)


def read_rows(file: BinaryIO, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield, for each row that exists, a function that returns the content of its image file.

    Args:
        file: an opened Parquet file, which is read up to the last of `rows`.
        rows: one or more row indices in the file, in ascending order.

    Raises:
        UserError: the column of images is of another type.
        Exception: whatever Arrow or the file system raises while the file is read.
    """
    import pyarrow.parquet as pq

    requested = set(rows)
    with pq.ParquetFile(file) as shard:
        column = image_column(shard.schema_arrow.names)
        check_image_column(shard.schema_arrow.field(column))
        for row, cell in _cells_from(shard, column, rows[0]):
            if row in requested:
                yield partial(_content, cell)
            if row >= rows[-1]:
                return


def _cells_from(
    shard: "pq.ParquetFile", column: str | None, first_row: int
) -> Iterator[tuple[int, "pa.Scalar"]]:
    """Yield the index and the cell of each row, from the row group that contains `first_row`."""
    row = 0
    groups = list(range(shard.metadata.num_row_groups))
    while groups and row + shard.metadata.row_group(groups[0]).num_rows <= first_row:
        row += shard.metadata.row_group(groups.pop(0)).num_rows
    for batch in shard.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[column]):
        for cell in batch.column(0):
            yield row, cell
            row += 1


def _content(cell: "pa.Scalar") -> bytes:
    return bytes_of(cell.as_py())
