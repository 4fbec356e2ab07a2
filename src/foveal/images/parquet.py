"""Images in the rows of Parquet files, in the Hugging Face layout: structs of bytes and path.

They are read from the bytes alone: a path that stands in a table is never opened.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, TypedDict

from foveal.foundation.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_COLUMNS = ("image", "img")
_ROWS = 64  # in memory at a time


def image_column(names: Collection[str]) -> str | None:
    """Return which of a file's columns holds the images, or None."""
    return next((name for name in _COLUMNS if name in names), None)


def check_image_column(field: "pa.Field") -> None:
    """Check that a column holds the bytes of image files; text in it is never opened as a path.

    Args:
        field: of an Arrow schema.

    Raises:
        UserError: the column is of another type.
    """
    import pyarrow as pa

    kind = field.type
    found = kind.field("bytes").type if _has_bytes(kind) else None
    if found is None or not (pa.types.is_binary(found) or pa.types.is_large_binary(found)):
        raise UserError(
            f"expected {field.name} to be structs of bytes and path (binary, string), but got "
            f"{kind}: images are read from the bytes alone"
        )


def _has_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


class Cell(TypedDict, total=False):
    """A cell of a column of images."""

    bytes: bytes | None
    path: str | None


def bytes_of(cell: Cell | None) -> bytes:
    """Return the content of the image file that a cell of a column of images holds.

    Raises:
        UserError: there is none.
    """
    cell = cell or {}
    content = cell.get("bytes")
    if not content:
        raise UserError(
            "the row has a path but no bytes: images are read from the bytes alone"
            if cell.get("path")
            else "the row holds no image"
        )
    return bytes(content)


def read_rows(file: BinaryIO, rows: Sequence[int]) -> Iterator[Callable[[], bytes]]:
    """Yield, for each row that there is, a function that returns the content of its image file.

    Args:
        file: opened; it is read as far as the last of the rows.
        rows: numbers, in ascending order.

    Raises:
        UserError: the column of images is of another type.
        Exception: of Arrow, or of what reads the file.
    """
    import pyarrow.parquet as pq

    wanted = set(rows)
    with pq.ParquetFile(file) as shard:
        column = image_column(shard.schema_arrow.names)
        check_image_column(shard.schema_arrow.field(column))
        for number, cell in _cells_from(shard, column, rows[0]):
            if number in wanted:
                yield partial(_content, cell)
            if number >= rows[-1]:
                return


def _cells_from(
    shard: "pq.ParquetFile", column: str | None, first: int
) -> Iterator[tuple[int, "pa.Scalar"]]:
    """Yield number and cell of each row, from the row group on that holds the row `first`."""
    number, groups = 0, list(range(shard.metadata.num_row_groups))
    while groups and number + shard.metadata.row_group(groups[0]).num_rows <= first:
        number += shard.metadata.row_group(groups.pop(0)).num_rows
    for batch in shard.iter_batches(_ROWS, row_groups=groups, columns=[column]):
        for cell in batch.column(0):
            yield number, cell
            number += 1


def _content(cell: "pa.Scalar") -> bytes:
    return bytes_of(cell.as_py())
