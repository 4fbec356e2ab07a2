"""Comparison with the original student project: its published accuracies and Foveal's."""

from typing import Any

from foveal import zoo

# Published test accuracies in percent, by kind of model and dataset, after 20 epochs. The focus and
# corners models have 3 patches of "5 pixels", as the project describes them.
PUBLISHED = {
    "focus": {"mnist": 98, "fashion-mnist": 86, "cifar10": 52},
    "corners": {"mnist": 86, "fashion-mnist": 72, "cifar10": 34},
    "attention": {"cifar10": 79},
}
# Titles of the datasets.
DATASETS = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10 (JPEG)"}


def accuracy_rows() -> list[dict[str, Any]]:
    """Return one row per kind of model with its published, retrained and Foveal accuracies.

    Each row has `kind`, and under each dataset's name a dictionary of those accuracies that are
    available, from 0 to 1: `published`, `rebuilt` (of the published network, trained with Foveal's
    pipeline) and `ours` (of Foveal's network).
    """
    rows = []
    for kind, figures in PUBLISHED.items():
        row: dict[str, Any] = {"kind": kind}
        for data in DATASETS:
            accuracies = {
                "rebuilt": _accuracy(f"{data}-{kind}-published"),
                "ours": _accuracy(f"{data}-{kind}"),
            }
            cell = {name: value for name, value in accuracies.items() if value is not None}
            if data in figures:
                cell["published"] = figures[data] / 100
            row[data] = cell
        rows.append(row)
    return rows


def curves(data: str) -> dict[str, dict[str, list[float]]]:
    """Return the learning curves of the table's models for a dataset, by name of the model.

    Models that are not in the zoo, or have no curves there, are left out.

    Args:
        data: name of the dataset.
    """
    names = (f"{data}-{kind}{suffix}" for kind in PUBLISHED for suffix in ("", "-published"))
    zoo_names = zoo.names()
    curves_by_name = {name: zoo.curve(name) for name in names if name in zoo_names}
    return {name: curve for name, curve in curves_by_name.items() if curve is not None}


def _accuracy(name: str) -> float | None:
    """Return the accuracy of a model of the zoo, or None if there is no such model or figure."""
    if name not in zoo.names():
        return None
    return zoo.card(name).get("figures", {}).get("accuracy")
