"""Tables of docs/report.md, from the results of experiments/report.py and its parts."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from foveal.evaluation.report.tables import markdown_table
from foveal.foundation.columns import Column, present_columns
from foveal.metrics.judged import at_top
from foveal.metrics.registry import column_of, explanation_columns, model_columns

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COMPARED = ("mnist", "fashion-mnist", "cifar10", "cluttered-mnist-60")
# Headings of figures that are not metrics.
HEADINGS = {
    "of": "mosaics",
    "time_ratio": "relative time, 100 images",
    "time_ratio_of_1": "one image",
    "time_ratio_of_256": "256 images",
    "epochs": "epochs",
    "answers_the_mark": "predicts the mark's class",
    "decided_by_the_mark": "decided by it",
    "follows_the_mark": "follows it",
    "touched": "touched where decided",
    "shown": "shown where decided",
    "shown_where_followed": "shown where followed",
}
NOT_MEASURED = "*Not measured yet: `make report` writes this table.*"


def plain_columns(form: str, *keys: str) -> list[Column]:
    """Return columns of figures that are not metrics, all in one format."""
    return [Column(key, HEADINGS[key], form, "", "") for key in keys]


def column_for(metric: str, key: str) -> Column:
    """Return the column of a metric, for results under another key."""
    return replace(column_of(metric), key=key)


HITS = column_for("pointing_game", "hits")


def load_results(path: Path) -> dict[str, Any]:
    """Return the stored results, empty if there are none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def models_table(data: str) -> str:
    """Return the figures of a dataset's models."""
    rows = load_results(RESULTS / "models" / f"{data}.json").get("models", [])
    if not rows:
        return NOT_MEASURED
    return markdown_table(["model"], present_columns(model_columns(), rows), rows)


def explanations_table(data: str, published: bool) -> str:
    """Return the figures of a dataset's explanations, by Foveal's metrics or those of Quantus."""
    results = load_results(RESULTS / "models" / f"{data}.json").get("explanations", [])
    rows = [at_top(row) for row in results]
    columns = [
        column
        for column in present_columns(explanation_columns(), rows)
        if column.key.startswith("published_") == published
    ]
    return markdown_table(["model", "method"], columns, rows) if columns else NOT_MEASURED


def meanings() -> str:
    """Return the meanings of all figures of models and explanations."""
    models = model_columns()
    explanation_figures = [column for column in explanation_columns() if column not in models]
    lines = []
    for title, columns in (
        ("Figures of models", models),
        ("Figures of explanations only", explanation_figures),
    ):
        items = [
            f"- **{column.heading}**: {column.meaning} ({_direction_text(column)})."
            for column in columns
        ]
        lines += [f"{title}:", "", *items]
        lines.append("")
    return "\n".join(lines)


def _direction_text(column: Column) -> str:
    is_ordered = column.direction in ("higher", "lower")
    return f"{column.direction} is better" if is_ordered else column.direction


def method_table(models: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Return a table of the results of each method for each model."""
    rows = [
        {"model": name, "method": method} | row
        for name, methods in models.items()
        for method, row in methods.items()
    ]
    return markdown_table(["model", "method"], columns, rows) if rows else NOT_MEASURED


def grid_table() -> str:
    """Return the results of benchmarks/experiments/grid.py."""
    columns = [
        column_of("energy_inside"),
        HITS,
        *plain_columns("{}", "of"),
    ]
    models = {}
    for name, results in load_results(RESULTS / "grid.json").items():
        counts = {"of": f"{results['answered']} of {results['mosaics']}"}
        models[name] = {method: counts | row for method, row in results["methods"].items()}
    return method_table(models, columns)


def pointing_table() -> str:
    """Return the results of benchmarks/experiments/pointing.py."""
    models = {
        name: {method: {"hits": hits} for method, hits in results.items()}
        for name, results in load_results(RESULTS / "pointing.json").get("models", {}).items()
    }
    return method_table(models, [HITS])


def costs_table() -> str:
    """Return the results of benchmarks/performance/costs.py."""
    times = plain_columns("{:.2f}", "time_ratio", "time_ratio_of_1", "time_ratio_of_256")
    columns = [column_for("cost_forward_passes", "passes"), *times]
    return method_table(load_results(RESULTS / "costs.json").get("models", {}), columns)


def planted_models() -> str:
    """Return how often models depend on the mark, from benchmarks/experiments/planted.py."""
    rows = [
        {"model": model} | results
        for model, results in load_results(RESULTS / "planted.json").items()
    ]
    marks = plain_columns("{:.1%}", "answers_the_mark", "decided_by_the_mark", "follows_the_mark")
    columns = [*plain_columns("{}", "epochs"), column_of("accuracy"), *marks]
    return markdown_table(["model"], columns, rows).replace("`", "") if rows else NOT_MEASURED


def planted_table() -> str:
    """Return how often explanations show the mark, from benchmarks/experiments/planted.py."""
    models = {
        model: results["methods"]
        for model, results in load_results(RESULTS / "planted.json").items()
    }
    marks = plain_columns("{:.1%}", "touched", "shown", "shown_where_followed")
    columns = [column_for("evidence_fraction", "evidence"), *marks]
    return method_table(models, columns).replace("`", "")  # variants are not zoo names


def honest_variants() -> str:
    """Return the results of benchmarks/experiments/honest.py."""
    keys = ("accuracy", "position_leakage", "content_following", "position_following")
    columns = [column_of(key) for key in keys]
    parts = []
    for data, results in load_results(RESULTS / "honest.json").items():
        rows = [{"variant": variant} | row for variant, row in results["ways"].items()]
        table = markdown_table(["variant"], columns, rows).replace("`", "")
        parts.append(f"`{data}`, {results['epochs']} epochs, validation images:\n\n{table}")
    return "\n".join(parts)


TABLES: dict[str, Callable[[], str]] = {
    **{f"{data}-models": partial(models_table, data) for data in COMPARED},
    **{f"{data}-explanations": partial(explanations_table, data, False) for data in COMPARED},
    **{f"{data}-published": partial(explanations_table, data, True) for data in COMPARED},
    "meanings": meanings,
    "honest-ways": honest_variants,
    "pointing": pointing_table,
    "grid": grid_table,
    "costs": costs_table,
    "planted-models": planted_models,
    "planted": planted_table,
}
