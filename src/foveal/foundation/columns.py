"""Columns of tables: the heading, the format and the meaning of a figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One figure of a table.

    Attributes:
        key: key in dictionaries of figures, and in JSON and CSV files.
        heading: heading of the column.
        form: format string of a value.
        meaning: one line that a practitioner understands.
        direction: `higher` or `lower` is better; or a short description of a good value.
        listed: False if tables omit it.
    """

    key: str
    heading: str
    form: str
    meaning: str
    direction: str
    listed: bool = True

    def cell(self, figures: Mapping[str, object]) -> str:
        """Return the formatted figure, or a dash if there is none."""
        value = figures.get(self.key)
        return "–" if value is None else self.form.format(value)


def present(columns: Iterable[Column], rows: Sequence[Mapping[str, object]]) -> list[Column]:
    """Return the columns for which at least one row has a figure."""
    return [column for column in columns if any(row.get(column.key) is not None for row in rows)]
