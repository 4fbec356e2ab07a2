"""Tables of figures (values of metrics): CSV for programs, LaTeX for papers, Markdown for docs."""

import csv
import io
from collections.abc import Mapping, Sequence

from foveal.foundation.columns import Column
from foveal.foundation.escaping import csv_cell, tex


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV with all their figures, which are not rounded; missing ones are empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows([_csv_value(row.get(name)) for name in names] for row in rows)
    return buffer.getvalue()


def _csv_value(value: object) -> object:
    return csv_cell(value) if isinstance(value, str) else value


def latex_table(
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, object]]
) -> str:
    """Return rows as a LaTeX table, which needs the package booktabs.

    Args:
        heads: keys in `rows` of the columns of names on the left, which are also their headings.
        columns: columns of figures on the right, formatted as in the HTML report.
        rows: names and figures of each row, by key.
    """
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(heads)}{'r' * len(columns)}}}",
        r"\toprule",
        _latex_row([*heads, *(column.heading for column in columns)]),
        r"\midrule",
        *(
            _latex_row([*(str(row[head]) for head in heads), *(c.cell(row) for c in columns)])
            for row in rows
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, object]]
) -> str:
    """Return rows as a Markdown table, with names as code; see `latex_table` for the arguments."""
    lines = [
        [*heads, *(column.heading for column in columns)],
        [*("---" for _ in heads), *("---:" for _ in columns)],
        *(
            [*(f"`{row[head]}`" for head in heads), *(column.cell(row) for column in columns)]
            for row in rows
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape, cells)) + r" \\"


def _escape(text: str) -> str:
    """Return a text for LaTeX, in which an en dash is written as two hyphens."""
    return tex(text).replace("–", "--")
