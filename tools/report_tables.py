"""Tables of docs/report.md, from the results of experiments/report.py and its parts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from foveal.evaluation.report.tables import markdown_table
from foveal.foundation.columns import Column, present
from foveal.metrics.judged import at_top
from foveal.metrics.registry import column_of, explanation_columns, model_columns

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COMPARED = ("mnist", "fashion-mnist", "cifar10", "cluttered-mnist-60")
HITS = replace(column_of("pointing_game"), key="hits")
NOT_YET = "*Not measured yet: `make report` writes this table.*"


def known(path: Path) -> dict[str, Any]:
    """Return the stored results, empty if there are none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def models_table(data: str) -> str:
    """Return the figures of a dataset's models."""
    rows = known(RESULTS / "models" / f"{data}.json").get("models", [])
    return markdown_table(["model"], present(model_columns(), rows), rows) if rows else NOT_YET


def explanations_table(data: str, published: bool) -> str:
    """Return the figures of a dataset's explanations, by Foveal's metrics or those of Quantus."""
    found = known(RESULTS / "models" / f"{data}.json").get("explanations", [])
    rows = [at_top(row) for row in found]
    columns = [
        column
        for column in present(explanation_columns(), rows)
        if column.key.startswith("published_") == published
    ]
    return markdown_table(["model", "method"], columns, rows) if columns else NOT_YET


def meanings() -> str:
    """Return the meanings of all figures of models and explanations."""
    models = model_columns()
    rest = [column for column in explanation_columns() if column not in models]
    lines = []
    for title, columns in (("Of models", models), ("Of explanations alone", rest)):
        said = [f"- **{c.heading}**: {c.meaning} ({_better(c)})." for c in columns]
        lines += [f"{title}:", "", *said]
        lines.append("")
    return "\n".join(lines)


def _better(column: Column) -> str:
    is_side = column.direction in ("higher", "lower")
    return f"{column.direction} is better" if is_side else column.direction


def by_method(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Return a table of the results of each method for each model."""
    rows = [
        {"model": name, "method": method} | row
        for name, methods in models.items()
        for method, row in methods.items()
    ]
    return markdown_table(["model", "method"], columns, rows) if rows else NOT_YET


def grid_table() -> str:
    """Return the results of benchmarks/experiments/grid.py."""
    columns = [
        column_of("energy_inside"),
        HITS,
        Column("of", "mosaics", "{}", "", ""),
    ]
    models = {}
    for name, found in known(RESULTS / "grid.json").items():
        answered = {"of": f"{found['answered']} of {found['mosaics']}"}
        models[name] = {method: answered | row for method, row in found["methods"].items()}
    return by_method(models, columns)


def pointing_table() -> str:
    """Return the results of benchmarks/experiments/pointing.py."""
    models = {
        name: {method: {"hits": hits} for method, hits in found.items()}
        for name, found in known(RESULTS / "pointing.json").get("models", {}).items()
    }
    return by_method(models, [HITS])


def costs_table() -> str:
    """Return the results of benchmarks/performance/costs.py."""
    columns = [
        replace(column_of("cost_forward_passes"), key="passes"),
        Column("time_ratio", "relative time, 100 images", "{:.2f}", "", ""),
        Column("time_ratio_of_1", "one image", "{:.2f}", "", ""),
        Column("time_ratio_of_256", "256 images", "{:.2f}", "", ""),
    ]
    return by_method(known(RESULTS / "costs.json").get("models", {}), columns)


def planted_models() -> str:
    """Return how often models depend on the mark, from benchmarks/experiments/planted.py."""
    columns = [
        Column("epochs", "epochs", "{}", "", ""),
        column_of("accuracy"),
        Column("answers_the_mark", "predicts the mark's class", "{:.1%}", "", ""),
        Column("decided_by_the_mark", "decided by it", "{:.1%}", "", ""),
        Column("follows_the_mark", "follows it", "{:.1%}", "", ""),
    ]
    rows = [{"model": way} | found for way, found in known(RESULTS / "planted.json").items()]
    return markdown_table(["model"], columns, rows).replace("`", "") if rows else NOT_YET


def planted_table() -> str:
    """Return how often explanations show the mark, from benchmarks/experiments/planted.py."""
    columns = [
        replace(column_of("evidence_fraction"), key="evidence"),
        Column("touched", "touched where decided", "{:.1%}", "", ""),
        Column("shown", "shown where decided", "{:.1%}", "", ""),
        Column("shown_where_followed", "shown where followed", "{:.1%}", "", ""),
    ]
    models = {way: found["methods"] for way, found in known(RESULTS / "planted.json").items()}
    return by_method(models, columns).replace("`", "")  # variants are no names


def honest_ways() -> str:
    """Return the results of benchmarks/experiments/honest.py."""
    keys = ("accuracy", "position_leakage", "content_following", "position_following")
    columns = [column_of(key) for key in keys]
    parts = []
    for data, found in known(RESULTS / "honest.json").items():
        rows = [{"variant": way} | row for way, row in found["ways"].items()]
        table = markdown_table(["variant"], columns, rows).replace("`", "")
        parts.append(f"`{data}`, {found['epochs']} epochs, validation images:\n\n{table}")
    return "\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {
    **{f"{data}-models": partial(models_table, data) for data in COMPARED},
    **{f"{data}-explanations": partial(explanations_table, data, False) for data in COMPARED},
    **{f"{data}-published": partial(explanations_table, data, True) for data in COMPARED},
    "meanings": meanings,
    "honest-ways": honest_ways,
    "pointing": pointing_table,
    "grid": grid_table,
    "costs": costs_table,
    "planted-models": planted_models,
    "planted": planted_table,
}
