"""Columns of tables: the heading, format and meaning of a figure, which is a metric's value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table, which shows one figure per row.

    Attributes:
        key: key in dictionaries of figures, and in JSON and CSV files.
        heading: heading of the column.
        form: format string of a value.
        meaning: one line that a practitioner understands.
        direction: `higher` or `lower` if that is better, else a short description of a good value.
        listed: whether tables show the column.
    """

    key: str
    heading: str
    form: str
    meaning: str
    direction: str
    listed: bool = True

    def cell(self, figures: Mapping[str, object]) -> str:
        """Return the formatted figure of a row, or a dash if the row has none."""
        value = figures.get(self.key)
        return "–" if value is None else self.form.format(value)


def present_columns(
    columns: Iterable[Column], rows: Sequence[Mapping[str, object]]
) -> list[Column]:
    """Return the columns for which at least one row has a figure."""
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]
