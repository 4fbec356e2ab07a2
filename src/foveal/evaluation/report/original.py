"""Comparison with the original student project: its published accuracies and Foveal's."""

from typing import Any

from foveal import zoo

# Test accuracies in percent as published, after 20 epochs, 3 patches of "5 pixels".
PUBLISHED = {
    "focus": {"mnist": 98, "fashion-mnist": 86, "cifar10": 52},
    "corners": {"mnist": 86, "fashion-mnist": 72, "cifar10": 34},
    "attention": {"cifar10": 79},
}
DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}


def beside_original() -> list[dict[str, Any]]:
    """Return one row per kind of model: published, retrained on Foveal's pipeline, and Foveal's.

    Each row has `kind`, and under each dataset's name a dictionary of `published`, `rebuilt` and
    `ours` as fractions from 0 to 1, as far as they are known.
    """
    rows = []
    for kind, figures in PUBLISHED.items():
        row: dict[str, Any] = {"kind": kind}
        for data in DATASETS:
            found = {
                "rebuilt": _accuracy(f"{data}-{kind}-published"),
                "ours": _accuracy(f"{data}-{kind}"),
            }
            cell = {name: value for name, value in found.items() if value is not None}
            if data in figures:
                cell["published"] = figures[data] / 100
            row[data] = cell
        rows.append(row)
    return rows


def curves(data: str) -> dict[str, dict[str, list[float]]]:
    """Return the learning curves of a dataset's models that are in the table and in the zoo."""
    names = (f"{data}-{kind}{rest}" for kind in PUBLISHED for rest in ("", "-published"))
    known = zoo.names()
    found = {name: zoo.curve(name) for name in names if name in known}
    return {name: curve for name, curve in found.items() if curve is not None}


def _accuracy(name: str) -> float | None:
    if name not in zoo.names():
        return None
    return zoo.card(name).get("figures", {}).get("accuracy")
