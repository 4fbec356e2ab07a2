"""Tables of figures as files: CSV for programs, LaTeX for papers, Markdown for documents."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from foveal.report.columns import Column

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
}


def csv_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV with all their figures, unrounded; what a row lacks is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def latex_table(
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return rows as a LaTeX table for the package booktabs.

    Args:
        heads: keys of the names on the left.
        columns: figures on the right, as a page writes them.
        rows: names and figures.
    """
    lines = [
        rf"\begin{{tabular}}{{{'l' * len(heads)}{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(_escaped, [*heads, *(column.name for column in columns)])) + r" \\",
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
    heads: Sequence[str], columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Return rows as a Markdown table; see `latex_table`. Names are set as code."""
    lines = [
        [*heads, *(column.name for column in columns)],
        [*("---" for _ in heads), *("---:" for _ in columns)],
        *(
            [*(f"`{row[head]}`" for head in heads), *(column.cell(row) for column in columns)]
            for row in rows
        ),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(sign, sign) for sign in text)
