"""Summary and pictures of the results of `photos.py`.

Writes benchmarks/results/photos.json and docs/images/photos-*.png:

    python tools/photo_tables.py
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.foundation.files import read_json, write_json
from foveal.metrics.interval import Interval, bootstrap

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "photos"
TICKS = (50, 70, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1500, 2000, 3000)
# Other selections or heads for the same crops, at about the same cost: they are not drawn.
OTHERS = ("distil", "greedy", "peaks", "perturbed", "tokens", "attention")
NOT_DRAWN = (*(f"focus-8-{how}" for how in OTHERS), "focus-gumbel", "focus-2-gumbel")
BALANCED = {"deeppcb": False, "magnetic-tile": True, "clothing": True, "isic2017": True}


def rows_of(data: str) -> list[dict[str, Any]]:
    """Return the rows of a dataset, those of the whole image first, sorted by cost."""
    files = sorted((RESULTS / data).glob("*.json"))
    rows = [
        read_json(file) for file in files if file.name not in ("tested.json", "explanations.json")
    ]
    times = read_json(RESULTS / "times.json").get(data, {})
    rows = [row | {"latency_ms": times.get(row["row"])} for row in rows]
    return sorted(rows, key=lambda row: (not row["row"].startswith("whole"), row["macs"]))


def correct(row: dict[str, Any], how: str, labels: Tensor) -> Tensor:
    """Return which predictions (N,) are correct, as 0 or 1."""
    return (torch.tensor([int(a) for a in row["answers"][how].split()]) == labels).double()


def at_equal_macs(macs: int, whole: list[tuple[int, Tensor]]) -> Tensor:
    """Return the correctness (N,) of the whole image, interpolated at the log of some `macs`."""
    below = [point for point in whole if point[0] <= macs] or whole[:1]
    above = [point for point in whole if point[0] >= macs] or whole[-1:]
    (low, first), (high, second) = below[-1], above[0]
    fraction = 0.0 if high == low else (math.log(macs) - math.log(low)) / math.log(high / low)
    return (1 - fraction) * first + fraction * second


def summary(data: str) -> dict[str, Any]:
    """Return the figures of a dataset's rows, without its predictions."""
    tested = read_json(RESULTS / data / "tested.json")
    labels, groups = torch.tensor(tested["labels"]), tested["groups"]
    rows = rows_of(data)
    whole = [
        (row["macs"], {how: correct(row, how, labels) for how in ("tuned", "linear")})
        for row in rows
        if row["row"].startswith("whole")
    ]
    summaries = []
    for row in rows:
        figures = {k: v for k, v in row.items() if k not in ("answers", "recipe", "data")}
        for how in ("linear", "frozen", "tuned"):
            hits = correct(row, how, labels)
            for balanced in (False, True):
                name = f"{how}_balanced" if balanced else how
                interval = bootstrap(hits, labels, groups=groups, balanced=balanced)
                figures[name] = interval._asdict()
        if row["row"].startswith("focus") and whole:
            for how, whole_how in (("tuned", "tuned"), ("frozen", "linear")):
                other = at_equal_macs(
                    row["macs"], [(macs, by_stage[whole_how]) for macs, by_stage in whole]
                )
                gain: Interval = bootstrap(
                    correct(row, how, labels) - other,
                    labels,
                    groups=groups,
                    balanced=BALANCED[data],
                )
                figures[f"{how}_gain"] = gain._asdict()
                figures[f"{how}_whole"] = bootstrap(
                    other, labels, groups=groups, balanced=BALANCED[data]
                )._asdict()
        summaries.append(figures)
    path = RESULTS / data / "explanations.json"
    return {
        "images": len(labels),
        "groups": len(set(groups)),
        "balanced": BALANCED[data],
        "rows": summaries,
        "explanations": read_json(path) if path.is_file() else {},
    }


def picture(data: str, results: dict[str, Any], path: Path) -> None:
    """Draw accuracy against multiply-adds."""
    from foveal.plotting import COLOURS, INK, new_figure, save_figure

    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    name = "tuned_balanced" if results["balanced"] else "tuned"
    kinds = (
        ("whole", "whole image", "o-"),
        ("attention", "attention", "s-"),
        ("focus", "crops", "D"),
    )
    for index, (kind, label, style) in enumerate(kinds):
        rows = sorted(
            (r for r in results["rows"] if r["row"].startswith(kind) and r["row"] not in NOT_DRAWN),
            key=lambda r: r["macs"],
        )
        if not rows:
            continue
        x = [row["macs"] / 1e6 for row in rows]
        y = [100 * row[name]["value"] for row in rows]
        spread = [
            [100 * (row[name]["value"] - row[name]["low"]) for row in rows],
            [100 * (row[name]["high"] - row[name]["value"]) for row in rows],
        ]
        axes.errorbar(
            x, y, spread, fmt=style, color=COLOURS[index], label=label, ms=5, lw=1.5, capsize=2
        )
        for row, cost, height in zip(rows, x, y, strict=True):
            if kind == "focus":
                axes.annotate(
                    row["row"], (cost, height), (7, 4), textcoords="offset points", fontsize=8
                )
    axes.set_xscale("log")
    costs = [row["macs"] / 1e6 for row in results["rows"]]
    ticks = [t for t in TICKS if 0.7 * min(costs) <= t <= 1.4 * max(costs)]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.8 * min(costs), 1.25 * max(costs))
    axes.set_xlabel("million multiply-adds per image", color=INK)
    axes.set_ylabel(
        "mean per-class accuracy, %" if results["balanced"] else "accuracy, %", color=INK
    )
    axes.set_title(data, color=INK, fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save_figure(figure, path)


def main() -> None:
    results = {
        data: summary(data) for data in BALANCED if (RESULTS / data / "tested.json").is_file()
    }
    write_json(RESULTS.parent / "photos.json", results)
    for data, figures in results.items():
        picture(data, figures, ROOT / "docs" / "images" / f"photos-{data}.png")


if __name__ == "__main__":
    main()
