"""HTML report of models: first pictures, then a table of the values of metrics.

`figure` means a figure of matplotlib in this module, a plot that is not yet a picture.
"""

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
from foveal.foundation.columns import Column, present_columns
from foveal.foundation.errors import UserError, extra
from foveal.foundation.escaping import printable
from foveal.metrics.registry import model_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY_IMAGES = 10  # per model
MISTAKE_IMAGES = 10  # per model, the most confident mistakes
DETAIL_IMAGES = 4  # per model, shown with the attention maps of each depth or the reconstruction


@dataclass(frozen=True)
class ReportEntry:
    """One model of a report.

    Attributes:
        name: name of the model.
        card: its card (recipe and versions), with the values that `foveal evaluate --json` prints.
        explanation: explanation of B test images, which are the same in every entry.
        labels: (B,) true classes of these images.
        curve: training curves, the columns of metrics.csv by name; or None.
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

    Pictures and styles are inside the page, so it opens offline and can be sent as one file.

    Args:
        entries: the models, in the order of the page.
        out: the folder, which is created if missing.
        title: title of the page.

    Raises:
        UserError: there are no entries, or the folder cannot be written.
    """
    if not entries:
        raise UserError("Expected at least 1 model to report on, but got none.")
    classifiers = [entry for entry in entries if _is_classifier(entry)]
    page = render(
        "demo.html",  # the template of every report of models, not only of `foveal demo`
        title=title,
        lead=_lead_picture(classifiers[0] if classifiers else entries[0]),
        models=[_model_values(entry, _columns(entries)) for entry in entries],
        columns=_columns(entries),
        curves=_curves(entries),
        frontier=_frontier(entries),
        data=entries[0].card.get("data", ""),
        images=entries[0].card.get("images", len(entries[0].labels)),  # their number
    )
    path = Path(out) / "index.html"
    write_text(path, page)
    return path


def render(template: str, **values: object) -> str:
    """Return a template of this package filled with values.

    Values are escaped, and control characters in them are made visible.

    Args:
        template: file name of the template.
        values: values by their names in the template.
    """
    with extra("jinja2", "report"):  # without jinja2, the error names the extra to install
        from jinja2 import Environment, PackageLoader, select_autoescape

    loader = PackageLoader("foveal.evaluation", "report")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(default=True), finalize=_printable_value
    )
    return environment.get_template(template).render(**values)


def _printable_value(value: object) -> object:
    """Return a value for a template: text without control characters, Markup unchanged."""
    return printable(value) if type(value) is str else value


def write_text(path: Path, content: str | bytes) -> None:
    """Write a file atomically; its folder is created if missing.

    Args:
        path: path of the file.
        content: text, which is encoded as UTF-8; or bytes, which are written unchanged.

    Raises:
        UserError: the file cannot be written.
    """
    partial_path = path.with_name(path.name + ".partial")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path.write_bytes(data)
        os.replace(partial_path, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial_path.unlink(missing_ok=True)
        raise UserError(f"Cannot write to {path.parent}: {error.strerror or error}.") from None


def inline(figure: "Figure") -> str:
    """Return a figure as a data URL of a PNG."""
    buffer = io.BytesIO()
    plotting.save_figure(figure, buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _lead_picture(entry: ReportEntry) -> dict[str, object]:
    """Return the first picture of the page, which shows one explained image, and its texts.

    The texts are the name of the model, its prediction and the picture's alternative text.
    """
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
    """Return whether the model has logits; a model that reconstructs images has none."""
    return entry.explanation.logits.shape[1] > 0


def _typical_index(entry: ReportEntry) -> int:
    """Return the index of an image of median confidence among the correctly classified ones.

    If there are none, it is chosen among all images; for a model without classes, it is the first.
    """
    if not _is_classifier(entry):
        return 0
    indices = (entry.explanation.predictions == entry.labels).nonzero().flatten()
    if len(indices) == 0:
        indices = torch.arange(len(entry.labels))
    confidence = entry.explanation.probabilities[indices].amax(dim=1)
    return int(indices[confidence.argsort()[len(indices) // 2]])


def _detail(entry: ReportEntry) -> str | None:
    """Return an enlarged picture of a classifier's evidence, or None if it has neither kind.

    It shows the attention maps of a few images, with a map for each depth (a stage of the
    backbone), or the patches of one image.
    """
    if entry.explanation.maps is not None:
        indices = _evenly_spaced_indices(entry, DETAIL_IMAGES)
        selection = _select(entry.explanation, indices)
        return inline(plotting.attention_grid(selection, entry.labels[indices]))
    if entry.explanation.patches is None:
        return None
    return inline(entry.explanation[_typical_index(entry)].figure())


def _columns(entries: Sequence[ReportEntry]) -> list[Column]:
    return present_columns(model_columns(), [entry.card for entry in entries])


def _model_values(entry: ReportEntry, columns: Sequence[Column]) -> dict[str, object]:
    """Return the template's values for one model: names, table cells and pictures."""
    cells = [column.cell(entry.card) for column in columns]
    row = {"name": entry.name, "note": entry.note, "cells": cells, "shown": len(entry.labels)}
    if not _is_classifier(entry):
        indices = _evenly_spaced_indices(entry, DETAIL_IMAGES)
        selection = _select(entry.explanation, indices)
        grid = inline(plotting.rebuilding_grid(selection))
        return {**row, "gallery": grid, "classifies": False}
    explanation, labels = entry.explanation, entry.labels
    wrong = (explanation.predictions != labels).nonzero().flatten()
    confidence = explanation.probabilities[wrong].amax(dim=1)
    mistakes = wrong[confidence.argsort(descending=True)][:MISTAKE_IMAGES]
    return {
        **row,
        "classifies": True,
        "gallery": _gallery(entry, _evenly_spaced_indices(entry, GALLERY_IMAGES)),
        "detail": _detail(entry),
        "mistakes": _gallery(entry, mistakes) if len(mistakes) else None,
        "wrong": len(wrong),
    }


def _evenly_spaced_indices(entry: ReportEntry, count: int) -> Tensor:
    """Return the indices of at most `count` images at equal distances.

    Images are often sorted by class, so this shows many classes.
    """
    return torch.linspace(0, len(entry.labels) - 1, min(count, len(entry.labels))).long()


def _gallery(entry: ReportEntry, indices: Tensor) -> str:
    """Return a picture of the images at `indices` (M,) with their explanations, as a data URL."""
    explanation = _select(entry.explanation, indices)
    return inline(plotting.gallery(explanation, entry.labels[indices]))


def _select(explanation: Explanation, indices: Tensor) -> Explanation:
    """Return the explanation of the images at `indices` (M,), in that order."""
    return Explanation.concatenate([explanation[int(index)] for index in indices])


def _curves(entries: Sequence[ReportEntry]) -> str | None:
    """Return a plot of the classifiers' training curves, or None if no model has curves."""
    curves = {e.name: e.curve for e in entries if e.curve and "val_accuracy" in e.curve}
    return inline(plotting.learning_curves(curves)) if curves else None


def _frontier(entries: Sequence[ReportEntry]) -> str | None:
    """Return a plot of accuracy against the fraction of the image that is used.

    Return None if no model has both values.
    """
    points = [
        (entry.name, entry.card["evidence_fraction"], entry.card["accuracy"])
        for entry in entries
        if entry.card.get("evidence_fraction") is not None
        and entry.card.get("accuracy") is not None
    ]
    return inline(plotting.frontier(points)) if points else None
