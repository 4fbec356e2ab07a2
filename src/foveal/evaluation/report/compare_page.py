"""HTML report of a comparison, with its tables also as CSV, JSON and LaTeX, and its plots.

A figure in the texts below is the value of a metric; a plot is a figure of Matplotlib.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal import plotting, zoo
from foveal.datasets import ImageSet
from foveal.datasets.annotations import annotated
from foveal.evaluation.compare import Candidate, Comparison
from foveal.evaluation.measuring import targets_of
from foveal.evaluation.report import original
from foveal.evaluation.report.page import inline, render, write_text
from foveal.evaluation.report.tables import csv_table, latex_table
from foveal.explainers import CONTROLS, OWN, explainer
from foveal.explanation import Explanation
from foveal.foundation.columns import Column, present_columns
from foveal.foundation.files import json_text
from foveal.images.photos import Photos
from foveal.images.values import as_floats
from foveal.metrics.judged import at_top
from foveal.metrics.observing import observe_all
from foveal.metrics.registry import explanation_columns, model_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY_IMAGES = 4  # images in each gallery


def write_comparison(comparison: Comparison, out: str | Path) -> Path:
    """Write index.html, results.json, tables as CSV and LaTeX, and plots; return the page's path.

    Raises:
        UserError: the folder cannot be written.
    """
    out = Path(out)
    models = [dict(row) for row in comparison.models]
    explanations = [at_top(row) for row in comparison.explanations]
    columns = present_columns(model_columns(), models)
    measures = present_columns(explanation_columns(), explanations)
    _write_tables(comparison, out)
    logits = {
        candidate.name: observe_all(candidate.network, comparison.test.images).logits
        for candidate in comparison.candidates
    }
    plots = _plots(comparison)
    for name, figure in plots.items():
        for extension in ("png", "svg"):
            _save(figure, out / "plots" / f"{name}.{extension}")
    page = render(
        "compare.html",
        test=comparison.test,
        judge=comparison.judge,
        many_sizes=isinstance(comparison.test.images, Photos),
        explained=comparison.explained,
        annotated=int(annotated(comparison.test).sum()),
        models=_rows([row["model"] for row in models], models, columns),
        columns=columns,
        explanations=_rows([*map(_heading, explanations)], explanations, measures),
        measures=measures,
        plots={name: inline(figure) for name, figure in plots.items()},
        galleries=_galleries(comparison, logits),
        confusions=_confusions(comparison, logits),
        original=_original(),
        datasets=original.DATASETS,
    )
    path = out / "index.html"
    write_text(path, page)
    return path


def _write_tables(comparison: Comparison, out: Path) -> None:
    """Write the figures as CSV, LaTeX and JSON."""
    models = [dict(row) for row in comparison.models]
    explanations = [at_top(row) for row in comparison.explanations]
    columns = present_columns(model_columns(), models)
    measures = present_columns(explanation_columns(), explanations)
    write_text(out / "models.csv", csv_table(models))
    write_text(out / "explanations.csv", csv_table(comparison.explanations))
    write_text(out / "models.tex", latex_table(["model"], columns, models))
    write_text(out / "explanations.tex", latex_table(["model", "method"], measures, explanations))
    results = {"models": models, "explanations": list(comparison.explanations)}
    write_text(out / "results.json", json_text(results, indent=2) + "\n")


def _rows(
    headings: Sequence[str], rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]
) -> list[dict[str, object]]:
    """Return the rows of an HTML table, each with its heading and the formatted figures."""
    return [
        {"name": heading, "cells": [column.cell(row) for column in columns]}
        for heading, row in zip(headings, rows, strict=True)
    ]


def _heading(row: Mapping[str, Any]) -> str:
    """Return the model's name, followed by the method unless the model explains itself."""
    return row["model"] if row["method"] == OWN else f"{row['model']} {row['method']}"


def _plots(comparison: Comparison) -> dict[str, "Figure"]:
    """Return the plots by file name without extension; those without any data are left out."""
    plots = result_plots(comparison.models, comparison.explanations)
    curves = {candidate.name: zoo.curve(candidate.name) for candidate in comparison.candidates}
    accuracy_curves = {
        name: curve for name, curve in curves.items() if curve and "val_accuracy" in curve
    }
    if accuracy_curves:
        plots["learning"] = plotting.learning_curves(accuracy_curves)
    return plots


def result_plots(
    models: Sequence[Mapping[str, Any]], explanations: Sequence[Mapping[str, Any]]
) -> dict[str, "Figure"]:
    """Return the plots of measured rows, `models` and `explanations` of a `Comparison`, by name."""
    plots = {
        "accuracy-evidence": plotting.frontier(
            [(row["model"], row["evidence_fraction"], row["accuracy"]) for row in models]
        ),
        "accuracy-macs": plotting.frontier(
            [(row["model"], row["macs"], row["accuracy"]) for row in models],
            "multiply-adds per image",
            logarithmic=True,
        ),
    }
    points = _judged_points(explanations)
    if points:
        plots["judged-evidence"] = plotting.judged_curves(points)
    return plots


def _judged_points(
    explanations: Sequence[Mapping[str, Any]],
) -> dict[str, list[tuple[float, float]]]:
    """Return pairs (fraction of pixels shown, accuracy of the judge) for each explanation.

    There is one pair for patches, and one for each fraction of pixels at which maps are judged.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for row in explanations:
        prefix, suffix = "sufficiency_at_", "%"
        pairs = [
            (float(name.removeprefix(prefix).removesuffix(suffix)) / 100, value)
            for name, value in row.items()
            if name.startswith(prefix)
        ]
        if "sufficiency" in row:
            pairs = [(row["evidence_fraction"], row["sufficiency"])]
        if pairs:
            points[_heading(row)] = sorted(pairs)
    return points


def _galleries(comparison: Comparison, logits: Mapping[str, Tensor]) -> list[dict[str, str]]:
    """Return galleries of the same images under every explanation except the controls.

    There is one gallery each for confident and correct, uncertain, and confident and wrong
    predictions of the first model. Galleries without images are left out.
    """
    first_candidate = comparison.candidates[0]
    test = comparison.test_of(first_candidate)
    rows = [row for row in comparison.explanations if row["method"] not in CONTROLS]
    confidences, predictions = logits[first_candidate.name].softmax(dim=-1).max(dim=1)
    correct = predictions == test.labels
    order = confidences.argsort(descending=True)
    groups = {
        "most confident and correct": order[correct[order]][:GALLERY_IMAGES],
        "least confident": order.flip(0)[:GALLERY_IMAGES],
        "most confident and wrong": order[~correct[order]][:GALLERY_IMAGES],
    }
    galleries = []
    for name, indices in groups.items():
        if not (len(indices) and rows):
            continue
        columns = [(_heading(row), _explain(comparison, row, indices)) for row in rows]
        labels = comparison.test_of(_candidate_of(comparison, rows[0])).labels
        picture = inline(plotting.side_by_side(columns, labels[indices]))
        galleries.append({"name": f"{name} ({first_candidate.name})", "picture": picture})
    return galleries


def _explain(comparison: Comparison, row: Mapping[str, Any], indices: Tensor) -> list[Explanation]:
    """Return the explanations in a row of the comparison, for the images at `indices` (M,)."""
    candidate = _candidate_of(comparison, row)
    test = comparison.test_of(candidate)
    explain = explainer(row["method"])
    explanations = []
    for index in indices:
        (batch,) = test.subset(index[None]).batches(1)
        targets = targets_of(batch, comparison.explained)
        explanation = explain(candidate.network, as_floats(batch.images), targets)
        explanations.append(replace(explanation, classes=test.classes))
    return explanations


def _candidate_of(comparison: Comparison, row: Mapping[str, Any]) -> Candidate:
    """Return the model whose explanations are in a row."""
    return next(c for c in comparison.candidates if c.name == row["model"])


def _confusions(comparison: Comparison, logits: Mapping[str, Tensor]) -> list[dict[str, str]]:
    """Return the name and the confusion matrix, as a picture, of each model."""
    return [
        {
            "name": candidate.name,
            "picture": inline(_confusion(comparison.test_of(candidate), logits[candidate.name])),
        }
        for candidate in comparison.candidates
    ]


def _confusion(test: ImageSet, logits: Tensor) -> "Figure":
    classes = logits.shape[1]
    cells = test.labels * classes + logits.argmax(dim=1)  # indices of the flattened matrix
    counts = torch.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return plotting.confusion_matrix(counts, test.classes)


def _original() -> dict[str, object]:
    """Return the template's values for the section on the original project.

    It shows the accuracies that the project published next to Foveal's.
    """
    sources = ("published", "rebuilt", "ours")
    rows = [
        {
            "kind": row["kind"],
            "cells": [
                {name: f"{row[data][name]:.1%}" if name in row[data] else "–" for name in sources}
                for data in original.DATASETS
            ],
        }
        for row in original.accuracy_rows()
    ]
    pictures = []
    for data, title in original.DATASETS.items():
        curves = original.curves(data)
        if curves:
            picture = inline(plotting.learning_curves(curves))
            pictures.append({"name": title, "picture": picture})
    return {"rows": rows, "pictures": pictures}


def _save(figure: "Figure", path: Path) -> None:
    """Save a plot in the format of the path's extension."""
    buffer = io.BytesIO()
    plotting.save_figure(figure, buffer, path.suffix[1:])
    write_text(path, buffer.getvalue())
