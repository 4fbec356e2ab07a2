"""Tables of figures as files: CSV for programs, LaTeX for papers, Markdown for documents."""

import csv
import io
from collections.abc import Mapping, Sequence

from foveal.foundation.columns import Column
from foveal.foundation.escaping import csv_cell, tex


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV with all their figures, unrounded; missing figures are empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows([_csv_value(row.get(name)) for name in names] for row in rows)
    return text.getvalue()


def _csv_value(value: object) -> object:
    return csv_cell(value) if isinstance(value, str) else value


def latex_table(
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, object]]
) -> str:
    """Return rows as a LaTeX table for the package booktabs.

    Args:
        heads: keys of the names on the left.
        columns: figures on the right, formatted as in the HTML report.
        rows: names and figures.
    """
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(heads)}{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(_escaped, [*heads, *(column.heading for column in columns)])) + r" \\",
        r"\midrule",
        *(
            " & ".join(
                map(
                    _escaped,
                    [*(str(row[head]) for head in heads), *(c.cell(row) for c in columns)],
                )
            )
            + r" \\"
            for row in rows
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def markdown_table(
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, object]]
) -> str:
    """Return rows as a Markdown table, with names as code; see `latex_table`."""
    lines = [
        [*heads, *(column.heading for column in columns)],
        [*("---" for _ in heads), *("---:" for _ in columns)],
        *(
            [*(f"`{row[head]}`" for head in heads), *(column.cell(row) for column in columns)]
            for row in rows
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    return tex(text).replace("–", "--")
