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
TICKS = (50, 70, 100, 150, 200, 300, 400, 600, 800, 1000)
WIDE_TICKS = (50, 100, 200, 500, 1000, 2000, 5000)  # if the costs differ by a factor above 20
# Variants with other selections, heads or an additional glance, at about the same cost, are not
# drawn.
VARIANTS = ("distil", "greedy", "peaks", "perturbed", "tokens", "attention", "glance")
NOT_DRAWN = (*(f"focus-8-{variant}" for variant in VARIANTS), "focus-gumbel", "focus-2-gumbel")
# Whether a dataset is measured by mean per-class accuracy instead of accuracy.
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


def correct(row: dict[str, Any], stage: str, labels: Tensor) -> Tensor:
    """Return which predictions (N,) are correct, as 0 or 1."""
    predictions = torch.tensor([int(text) for text in row["answers"][stage].split()])
    return (predictions == labels).double()


def at_equal_macs(macs: int, whole: list[tuple[int, Tensor]]) -> Tensor:
    """Return the correctness (N,) of the whole image, interpolated at log(`macs`).

    Args:
        macs: multiply-adds of a focus model.
        whole: multiply-adds, ascending, and correctness (N,) of models of the whole image.
    """
    below = [point for point in whole if point[0] <= macs] or whole[:1]
    above = [point for point in whole if point[0] >= macs] or whole[-1:]
    (low, low_correct), (high, high_correct) = below[-1], above[0]
    fraction = 0.0 if high == low else (math.log(macs) - math.log(low)) / math.log(high / low)
    return (1 - fraction) * low_correct + fraction * high_correct


def summary(data: str) -> dict[str, Any]:
    """Return the figures of a dataset's rows, without their predictions."""
    tested = read_json(RESULTS / data / "tested.json")
    labels, groups = torch.tensor(tested["labels"]), tested["groups"]
    rows = rows_of(data)
    whole = [
        (row["macs"], {stage: correct(row, stage, labels) for stage in ("tuned", "linear")})
        for row in rows
        if row["row"].startswith("whole")
    ]
    summaries = []
    for row in rows:
        omitted = ("answers", "recipe", "data")
        figures = {key: value for key, value in row.items() if key not in omitted}
        for stage in ("linear", "frozen", "tuned"):
            is_correct = correct(row, stage, labels)
            for balanced in (False, True):
                name = f"{stage}_balanced" if balanced else stage
                interval = bootstrap(is_correct, labels, groups=groups, balanced=balanced)
                figures[name] = interval._asdict()
        if row["row"].startswith("focus") and whole:
            for stage, whole_stage in (("tuned", "tuned"), ("frozen", "linear")):
                whole_correct = at_equal_macs(
                    row["macs"], [(macs, by_stage[whole_stage]) for macs, by_stage in whole]
                )
                gain: Interval = bootstrap(
                    correct(row, stage, labels) - whole_correct,
                    labels,
                    groups=groups,
                    balanced=BALANCED[data],
                )
                figures[f"{stage}_gain"] = gain._asdict()
                figures[f"{stage}_whole"] = bootstrap(
                    whole_correct, labels, groups=groups, balanced=BALANCED[data]
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
            (
                row
                for row in results["rows"]
                if row["row"].startswith(kind) and row["row"] not in NOT_DRAWN
            ),
            key=lambda row: row["macs"],
        )
        if not rows:
            continue
        costs = [row["macs"] / 1e6 for row in rows]
        values = [100 * row[name]["value"] for row in rows]
        error_bars = [
            [100 * (row[name]["value"] - row[name]["low"]) for row in rows],
            [100 * (row[name]["high"] - row[name]["value"]) for row in rows],
        ]
        axes.errorbar(
            costs,
            values,
            error_bars,
            fmt=style,
            color=COLOURS[index],
            label=label,
            ms=5,
            lw=1.5,
            capsize=2,
        )
        for row, cost, height in zip(rows, costs, values, strict=True):
            if kind == "focus":
                axes.annotate(
                    row["row"], (cost, height), (7, 4), textcoords="offset points", fontsize=8
                )
    axes.set_xscale("log")
    all_costs = [row["macs"] / 1e6 for row in results["rows"]]
    low, high = 0.8 * min(all_costs), 1.25 * max(all_costs)
    candidates = TICKS if high < 20 * low else WIDE_TICKS
    ticks = [tick for tick in candidates if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)
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
