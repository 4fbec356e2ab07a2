"""Tables of the results of `experiments/photos.py`, from benchmarks/results/photos.json."""

from typing import Any

Results = dict[str, Any]

SELECTIONS = {
    "focus-8": "`gumbel`: crops drawn with Gumbel noise, the head's weights as teacher",
    "focus-8-distil": "`distil`: the weights of a head that reads all candidates, as teacher",
    "focus-8-perturbed": "`perturbed`: the gradient of a perturbed top-k",
    "focus-8-greedy": "`greedy`: the candidates that decrease that head's loss most, as teacher",
    "focus-8-peaks": "`peaks`: the energy of the backbone's features, nothing learned",
}


def rows_table(data: str, results: Results) -> str:
    """Return the table of a dataset's models."""
    if data not in results:
        return "*Not measured yet.*"
    balanced = "_balanced" if results[data]["balanced"] else ""
    metric = "mean per-class accuracy" if balanced else "accuracy"
    lines = [
        f"| {metric}, % | tuned | frozen | million multiply-adds | ms | evidence |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in results[data]["rows"]:
        is_focus = row["row"].startswith("focus")
        frozen = row[("frozen" if is_focus else "linear") + balanced]
        tuned = _interval(row["tuned" + balanced])
        lines.append(
            f"| {_name(row)} | {tuned} | {100 * frozen['value']:.1f} | {row['macs'] / 1e6:,.0f} "
            f"| {_milliseconds(row['latency_ms'])} | {row['evidence_fraction']:.0%} |"
        )
    return "\n".join(lines)


def gains_table(results: Results) -> str:
    """Return how focus models compare with the whole image at equal multiply-adds."""
    lines = [
        "| dataset, focus model | tuned | whole image, tuned | difference, points | frozen "
        "| whole image, linear | difference, points |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for data, figures in results.items():
        balanced = "_balanced" if figures["balanced"] else ""
        for row in figures["rows"]:
            if "tuned_gain" in row:
                cells = [f"`{data}`, {row['row']}"]
                for stage in ("tuned", "frozen"):
                    value, whole_image = row[stage + balanced], row[f"{stage}_whole"]
                    cells += [f"{100 * value['value']:.1f}", f"{100 * whole_image['value']:.1f}"]
                    cells.append(_interval(row[f"{stage}_gain"], signed=True))
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def crop_selection_table(results: Results) -> str:
    """Return the accuracy of each method of learning the selection, on `deeppcb`."""
    rows = {row["row"]: row for row in results.get("deeppcb", {}).get("rows", [])}
    lines = ["| selection of 8 crops | frozen | tuned |", "|---|---:|---:|"]
    for name, description in SELECTIONS.items():
        if name in rows:
            frozen, tuned = (_interval(rows[name][stage]) for stage in ("frozen", "tuned"))
            lines.append(f"| {description} | {frozen} | {tuned} |")
    return "\n".join(lines)


def hits_table(results: Results) -> str:
    """Return how often each method's best crop covers half of a defect."""
    lines = ["| dataset | method | hits | images | s per image |", "|---|---|---:|---:|---:|"]
    for data, figures in results.items():
        for rows in figures["explanations"].values():
            for method, row in rows.items():
                lines.append(
                    f"| `{data}` | {method} | {row['hits']:.0%} ({row['low']:.0%} to "
                    f"{row['high']:.0%}) | {row['images']} | {row['seconds_per_image']:.2f} |"
                )
    return "\n".join(lines)


def _name(row: Results) -> str:
    kind, _, side = row["row"].partition("-")
    if kind == "focus":
        return f"crops, `{row['row']}`"
    return f"{'whole image' if kind == 'whole' else 'attention'}, {side} px"


def _interval(interval: Results, signed: bool = False) -> str:
    sign = "+" if signed else ""
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"
