"""Write a comparison: one self-contained page, its tables as CSV, JSON and LaTeX, its plots."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal import plotting, zoo
from foveal.datasets import ImageSet
from foveal.datasets.annotations import annotated
from foveal.evaluation.compare import Comparison, Contestant, targets_of
from foveal.evaluation.report import original
from foveal.evaluation.report.page import inline, render, write_text
from foveal.evaluation.report.tables import csv_table, latex_table
from foveal.explainers import CONTROLS, OWN, explainer
from foveal.explanation import Explanation
from foveal.foundation.columns import present
from foveal.foundation.files import json_text
from foveal.images.photos import Photos
from foveal.images.values import as_floats
from foveal.metrics.judged import at_top
from foveal.metrics.observing import observe_all
from foveal.metrics.registry import explanation_columns, model_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # images in each gallery


def write_comparison(comparison: Comparison, out: str | Path) -> Path:
    """Write index.html, results.json, tables as CSV and LaTeX, and plots; return the page's path.

    Raises:
        UserError: the folder cannot be written.
    """
    out = Path(out)
    models = [dict(row) for row in comparison.models]
    explanations = [at_top(row) for row in comparison.explanations]
    columns = present(model_columns(), models)
    measures = present(explanation_columns(), explanations)
    write_text(out / "models.csv", csv_table(models))
    write_text(out / "explanations.csv", csv_table(comparison.explanations))
    write_text(out / "models.tex", latex_table(["model"], columns, models))
    write_text(out / "explanations.tex", latex_table(["model", "method"], measures, explanations))
    results = {"models": models, "explanations": list(comparison.explanations)}
    write_text(out / "results.json", json_text(results, indent=2) + "\n")
    logits = {
        one.name: observe_all(one.network, comparison.test.images).logits
        for one in comparison.contestants
    }
    plots = _plots(comparison, logits)
    for name, figure in plots.items():
        for kind in ("png", "svg"):
            _save(figure, out / "plots" / f"{name}.{kind}")
    page = render(
        "compare.html",
        test=comparison.test,
        judge=comparison.judge,
        many_sizes=isinstance(comparison.test.images, Photos),
        explained=comparison.explained,
        annotated=int(annotated(comparison.test).sum()),
        models=[{"name": row["model"], "cells": [c.cell(row) for c in columns]} for row in models],
        columns=columns,
        explanations=[
            {"name": _heading(row), "cells": [c.cell(row) for c in measures]}
            for row in explanations
        ],
        measures=measures,
        plots={name: inline(figure) for name, figure in plots.items()},
        galleries=_galleries(comparison, logits),
        confusions=[
            {
                "name": one.name,
                "picture": inline(_confusion(comparison.test_of(one), logits[one.name])),
            }
            for one in comparison.contestants
        ],
        original=_original(),
        datasets=original.DATASETS,
    )
    path = out / "index.html"
    write_text(path, page)
    return path


def _heading(row: Mapping[str, Any]) -> str:
    return row["model"] if row["method"] == OWN else f"{row['model']} {row['method']}"


def _plots(comparison: Comparison, logits: Mapping[str, Tensor]) -> dict[str, "Figure"]:
    rows = comparison.models
    found = {
        "accuracy-evidence": plotting.frontier(
            [(row["model"], row["evidence_fraction"], row["accuracy"]) for row in rows]
        ),
        "accuracy-macs": plotting.frontier(
            [(row["model"], row["macs"], row["accuracy"]) for row in rows],
            "multiply-adds for one image",
            logarithmic=True,
        ),
    }
    judged = _judged_points(comparison)
    if judged:
        found["judged-evidence"] = plotting.judged_curves(judged)
    curves = {one.name: zoo.curve(one.name) for one in comparison.contestants}
    known = {name: curve for name, curve in curves.items() if curve and "val_accuracy" in curve}
    if known:
        found["learning"] = plotting.learning_curves(known)
    return found


def _judged_points(comparison: Comparison) -> dict[str, list[tuple[float, float]]]:
    """Return for each explanation the judge's accuracy at each share of pixels shown."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in comparison.explanations:
        start, end = "sufficiency_at_", "%"
        found = [
            (float(name.removeprefix(start).removesuffix(end)) / 100, value)
            for name, value in row.items()
            if name.startswith(start)
        ]
        if "sufficiency" in row:
            found = [(row["evidence_fraction"], row["sufficiency"])]
        if found:
            points[_heading(row)] = sorted(found)
    return points


def _galleries(comparison: Comparison, logits: Mapping[str, Tensor]) -> list[dict[str, str]]:
    """Return the same images under every explanation: sure and right, unsure, sure and wrong."""
    first = comparison.contestants[0]
    test = comparison.test_of(first)
    rows = [row for row in comparison.explanations if row["method"] not in CONTROLS]
    chances, answers = logits[first.name].softmax(dim=-1).max(dim=1)
    right = answers == test.labels
    order = chances.argsort(descending=True)
    groups = {
        "most confident, and right": order[right[order]][:SHOWN],
        "least confident": order.flip(0)[:SHOWN],
        "most confident, and wrong": order[~right[order]][:SHOWN],
    }
    made = []
    for name, chosen in groups.items():
        if not (len(chosen) and rows):
            continue
        shown = [(_heading(row), _explain(comparison, row, chosen)) for row in rows]
        labels = comparison.test_of(_explained_one(comparison, rows[0])).labels
        picture = inline(plotting.side_by_side(shown, labels[chosen]))
        made.append({"name": f"{name} ({first.name})", "picture": picture})
    return made


def _explain(comparison: Comparison, row: Mapping[str, Any], chosen: Tensor) -> list[Explanation]:
    """Return the explanation of each of the images at `chosen` (M,), in that order."""
    one = _explained_one(comparison, row)
    test = comparison.test_of(one)
    explain = explainer(row["method"])
    found = []
    for index in chosen:
        (image,) = test.subset(index[None]).batches(1)
        targets = targets_of(image, comparison.explained)
        explanation = explain(one.network, as_floats(image.images), targets)
        found.append(replace(explanation, classes=test.classes))
    return found


def _explained_one(comparison: Comparison, row: Mapping[str, Any]) -> Contestant:
    return next(one for one in comparison.contestants if one.name == row["model"])


def _confusion(test: ImageSet, logits: Tensor) -> "Figure":
    number = logits.shape[1]
    pairs = test.labels * number + logits.argmax(dim=1)
    counts = torch.bincount(pairs, minlength=number**2).reshape(number, number)
    return plotting.confusion_matrix(counts, test.classes)


def _original() -> dict[str, object]:
    """Return the page about the original project: its published figures, and ours beside them."""
    sources = ("published", "rebuilt", "ours")
    rows = [
        {
            "kind": row["kind"],
            "cells": [
                {name: f"{row[data][name]:.1%}" if name in row[data] else "–" for name in sources}
                for data in original.DATASETS
            ],
        }
        for row in original.beside_original()
    ]
    pictures = []
    for data, title in original.DATASETS.items():
        curves = original.curves(data)
        if curves:
            picture = inline(plotting.learning_curves(curves))
            pictures.append({"name": title, "picture": picture})
    return {"rows": rows, "pictures": pictures}


def _save(figure: "Figure", path: Path) -> None:
    buffer = io.BytesIO()
    plotting.save_figure(figure, buffer, path.suffix[1:])
    write_text(path, buffer.getvalue())
