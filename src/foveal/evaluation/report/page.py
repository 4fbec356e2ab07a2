"""HTML report of models: pictures first, then the figures."""

import base64
import contextlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal import plotting
from foveal.explanation import Explanation
from foveal.foundation.columns import Column, present
from foveal.foundation.errors import UserError, extra
from foveal.foundation.escaping import printable
from foveal.metrics.registry import model_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY_IMAGES = 10  # per model
MISTAKES = 10  # per model, the most confident
DETAIL_IMAGES = 4  # per model, shown with the attention of each depth or the reconstruction


@dataclass(frozen=True)
class ReportEntry:
    """One model of a report.

    Attributes:
        name: name of the model.
        card: its card and figures, as printed by `foveal evaluate --json`.
        explanation: explanation of B test images, the same images in every entry.
        labels: (B,) their true classes.
        curve: columns of metrics.csv, or None.
        note: short note on the origin of the model.
    """

    name: str
    card: dict[str, Any]
    explanation: Explanation
    labels: Tensor
    curve: dict[str, list[float]] | None = None
    note: str = ""


def write_report(
    entries: Sequence[ReportEntry], out: str | Path, title: str = "Where the models looked"
) -> Path:
    """Write `index.html` into a folder and return its path.

    Everything is inline, so the page opens offline and can be sent as one file.

    Raises:
        UserError: there are no entries, or the folder cannot be written.
    """
    if not entries:
        raise UserError("Expected at least 1 model to report on, but got none.")
    page = render(
        "demo.html",
        title=title,
        lead=_lead(next(filter(_is_classifier, entries), entries[0])),
        models=[_model(entry, _columns(entries)) for entry in entries],
        columns=_columns(entries),
        curves=_curves(entries),
        frontier=_frontier(entries),
        data=entries[0].card.get("data", ""),
        images=entries[0].card.get("images", len(entries[0].labels)),
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def render(template: str, **values: object) -> str:
    """Return a template of this package filled with values, which are escaped and printable."""
    with extra("jinja2", "report"):
        from jinja2 import Environment, PackageLoader, select_autoescape

    loader = PackageLoader("foveal.evaluation", "report")
    pages = Environment(
        loader=loader, autoescape=select_autoescape(default=True), finalize=_printable_value
    )
    return pages.get_template(template).render(**values)


def _printable_value(value: object) -> object:
    """Return a value for a template: text without control characters, Markup unchanged."""
    return printable(value) if type(value) is str else value


def write_text(path: Path, content: str | bytes) -> None:
    """Write a file atomically; its folder is created if missing.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"Cannot write to {path.parent}: {error.strerror or error}.") from None


def inline(figure: "Figure") -> str:
    """Return a figure as a data URL of a PNG."""
    buffer = io.BytesIO()
    plotting.save_figure(figure, buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _lead(entry: ReportEntry) -> dict[str, object]:
    """Return the first picture of the page: one explained image, drawn large."""
    index = _typical_index(entry)
    explanation = entry.explanation[index]
    if not _is_classifier(entry):
        alt = (
            f"An image, the patches that {entry.name} cut from it, and the image reconstructed "
            "from them"
        )
        picture = inline(explanation.figure())
        return {"picture": picture, "name": entry.name, "prediction": "", "alt": alt}
    prediction = explanation.class_name(int(explanation.predictions[0]))
    return {
        "picture": inline(explanation.figure()),
        "name": entry.name,
        "prediction": prediction,
        "alt": f"An image of class {explanation.class_name(int(entry.labels[index]))}, where "
        f"{entry.name} looked, and its prediction {prediction}",
    }


def _is_classifier(entry: ReportEntry) -> bool:
    return entry.explanation.logits.shape[1] > 0


def _typical_index(entry: ReportEntry) -> int:
    """Return the index of a correctly classified image of median confidence."""
    if not _is_classifier(entry):
        return 0
    indices = (entry.explanation.predictions == entry.labels).nonzero().flatten()
    if len(indices) == 0:
        indices = torch.arange(len(entry.labels))
    confidence = entry.explanation.probabilities[indices].amax(dim=1)
    return int(indices[confidence.argsort()[len(indices) // 2]])


def _detail(entry: ReportEntry) -> str | None:
    """Return a picture of the maps at each depth for a few images, or of one image's patches."""
    if entry.explanation.maps is not None:
        rows = _spread(entry, DETAIL_IMAGES)
        selection = _select(entry.explanation, rows)
        return inline(plotting.attention_grid(selection, entry.labels[rows]))
    if entry.explanation.patches is None:
        return None
    return inline(entry.explanation[_typical_index(entry)].figure())


def _columns(entries: Sequence[ReportEntry]) -> list[Column]:
    return present(model_columns(), [entry.card for entry in entries])


def _model(entry: ReportEntry, columns: Sequence[Column]) -> dict[str, object]:
    cells = [column.cell(entry.card) for column in columns]
    row = {"name": entry.name, "note": entry.note, "cells": cells, "shown": len(entry.labels)}
    if not _is_classifier(entry):
        selection = _select(entry.explanation, _spread(entry, DETAIL_IMAGES))
        grid = inline(plotting.rebuilding_grid(selection))
        return {**row, "gallery": grid, "classifies": False}
    explanation, labels = entry.explanation, entry.labels
    wrong = (explanation.predictions != labels).nonzero().flatten()
    confidence = explanation.probabilities[wrong].amax(dim=1)
    worst = wrong[confidence.argsort(descending=True)][:MISTAKES]
    return {
        **row,
        "classifies": True,
        "gallery": _gallery(entry, _spread(entry, GALLERY_IMAGES)),
        "detail": _detail(entry),
        "mistakes": _gallery(entry, worst) if len(worst) else None,
        "wrong": len(wrong),
    }


def _spread(entry: ReportEntry, count: int) -> Tensor:
    """Return the indices of evenly spaced images, as the images are often sorted by class."""
    return torch.linspace(0, len(entry.labels) - 1, min(count, len(entry.labels))).long()


def _gallery(entry: ReportEntry, indices: Tensor) -> str:
    explanation = _select(entry.explanation, indices)
    return inline(plotting.gallery(explanation, entry.labels[indices]))


def _select(explanation: Explanation, indices: Tensor) -> Explanation:
    return Explanation.concatenate([explanation[int(index)] for index in indices])


def _curves(entries: Sequence[ReportEntry]) -> str | None:
    curves = {e.name: e.curve for e in entries if e.curve and "val_accuracy" in e.curve}
    return inline(plotting.learning_curves(curves)) if curves else None


def _frontier(entries: Sequence[ReportEntry]) -> str | None:
    points = [
        (entry.name, entry.card["evidence_fraction"], entry.card["accuracy"])
        for entry in entries
        if entry.card.get("evidence_fraction") is not None
        and entry.card.get("accuracy") is not None
    ]
    return inline(plotting.frontier(points)) if points else None
