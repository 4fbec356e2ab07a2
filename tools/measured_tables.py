"""Tables of benchmark results, each from its JSON file in benchmarks/results."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from photo_rows import crop_selection_table, gains_table, hits_table, rows_table
from report_tables import RESULTS, load_results

from foveal import zoo
from foveal.metrics.registry import column_of

Results = dict[str, Any]  # content of a benchmark's JSON file


def losses_table(results: Results) -> str:
    """Return the effect of each loss term on keypoints learned by reconstruction."""
    keys = ("rebuilding_mse", "rebuilding_ssim", "evidence_fraction", "position_leakage")
    columns = [column_of(key) for key in keys]
    lines = [
        f"| `{results['data']}`, {results['epochs']} epochs, validation images | "
        f"{' | '.join(column.heading for column in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for terms, row in results["ways"].items():
        weights = ", ".join(f"{weight:g}" for weight in row["weights"].values())
        cells = " | ".join(column.cell(row) for column in columns)
        lines.append(f"| {terms} ({weights}) | {cells} |")
    return "\n".join(lines)


def predict_table(results: Results) -> str:
    """Return the speed of `foveal predict`, and of each of its parts by itself."""
    rates, steady = results["images_per_second"], results.get("steady_images_per_second", {})
    rows = [
        ("decoding, bare", rates["decoding"]),
        ("the model on decoded images, bare", rates["inference"]),
        ("`--engine local`, whole runs", rates["local"]),
        *(
            (f"`--engine {name}` next to Ray's processes, without its start-up", median(speeds))
            for name, speeds in steady.items()
        ),
    ]
    lines = [
        f"| {results['images']:,} JPEGs of 28×28 pixels, {results['cores']} cores "
        "| images per second |",
        "|---|---:|",
        *(f"| {label} | {rate:,.0f} |" for label, rate in rows),
        f"\nThe local engine reaches {results['local_share_of_slower']:.0%} of its slower part.",
    ]
    truncated = results["spoilt"]
    lines.append(
        f"With {truncated['spoilt']} of the files truncated, {truncated['rows_with_an_error']} "
        f"rows have an error and the other {truncated['rows_as_before']:,} are unchanged."
    )
    return "\n".join(lines)


def imagenet_options_table(results: Results) -> str:
    """Return the accuracy of `imagenet` by preprocessing."""
    lines = ["| photograph | odd numbers | even numbers | all |", "|---|---:|---:|---:|"]
    for row in results["ways"]:
        cells = " | ".join(f"{row[part]:.1%}" for part in ("odd", "even", "all"))
        lines.append(f"| {row['way']} | {cells} |")
    return "\n".join(lines)


def photo_folds_table(results: Results) -> str:
    """Return cross-validated results of attention and a linear layer on the pretrained backbone."""
    lines = [
        f"| {results['folds']} folds | images (groups) | accuracy | linear | difference, points "
        "| mean per-class accuracy | linear | difference, points |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results["rows"]:
        groups = f" ({row['groups']:,})" if row["groups"] else ""
        cells = [f"`{row['data']}-attention`", f"{row['images']:,}{groups}"]
        for ours, baseline, gain in (
            ("accuracy", "linear", "gain"),
            ("balanced", "linear_balanced", "balanced_gain"),
        ):
            low, high = (100 * row[gain][end] for end in ("low", "high"))
            difference = f"{100 * row[gain]['value']:+.1f} ({low:+.1f} to {high:+.1f})"
            cells += [f"{row[ours]['value']:.1%}", f"{row[baseline]['value']:.1%}", difference]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def scale_table(results: Results) -> str:
    """Return the single-machine measurements behind docs/scale.md."""
    decoding, listing, all_reduce = results["decoding"], results["listing"], results["adding_up"]
    rows = [
        (
            f"decoding and shrinking a photo of {results['photo_bytes'] / 1e3:.0f} KB",
            f"{decoding['ms_of_a_core']:.1f} ms on one core; {decoding['cores']} cores reach "
            f"{decoding['share_of_so_many_single_cores']:.0%} of "
            f"{decoding['cores']} times that rate",
        ),
        (
            "listing files on a disk",
            f"{listing['names_per_second_of_many_folders']:,.0f} names per second, "
            f"{listing['bytes_of_the_listing_per_name']:.1f} bytes each in the listing",
        ),
        ("the plan of a run, per image", f"{results['plan']['bytes_per_image']:.0f} bytes"),
        (
            "writing and syncing a shard of 2,048 rows",
            f"{results['writing']['ms_of_a_shard']:.1f} ms, "
            f"{results['writing']['bytes_of_a_row']:.0f} bytes per row",
        ),
        (
            "all-reduce of the gradients of `cifar10-focus-plain` (gloo, on one machine)",
            ", ".join(
                f"{key.split('_')[2]} processes {ms:.1f} ms" for key, ms in all_reduce.items()
            ),
        ),
    ]
    lines = [
        f"| `python benchmarks/performance/scale.py`, {results['cores']} cores | measured |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {label} | {value} |" for label, value in rows)])


def onnx_table(results: Results) -> str:
    """Return the results of benchmarks/performance/onnx_latency.py."""
    lines = [
        "One image, one thread, logits only: microseconds (median), by "
        "`benchmarks/performance/onnx_latency.py`. `int8` is the part of the graph in 8 "
        "bits; there is none if more than 0.2 points of accuracy on the validation images would be "
        "lost. Accuracies are measured on the test images. "
        f"{results['machine']}, PyTorch {results['torch']}, "
        f"ONNX Runtime {results['onnxruntime']}.",
        "",
        "![Times faster than eager PyTorch](images/onnx.png)",
        "",
        "| model | parameters | eager | ONNX | times faster | int8 | int8 µs | accuracy | int8 "
        "accuracy | kB | int8 kB |",
        "|---|" + "---:|" * 4 + "---|" + "---:|" * 5,
    ]
    for row in results["models"]:
        cells = [
            f"`{row['model']}`",
            f"{row['parameters']:,}",
            f"{row['eager_us']:.0f}",
            f"{row['onnx_us']:.0f}",
            f"**{row['eager_us'] / row['onnx_us']:.1f}**",
            row.get("int8_part", "–"),
            f"{row['int8_us']:.0f}" if "int8_us" in row else "–",
            f"{row['accuracy']:.2%}",
            f"{row['int8_accuracy']:.2%}" if "int8_us" in row else "–",
            f"{row['bytes'] / 1000:.0f}",
            f"{row['int8_bytes'] / 1000:.0f}" if "int8_us" in row else "–",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def first_hour_table(results: Results) -> str:
    """Return the results of benchmarks/experiments/first_hour.py."""
    columns = [column_of(key) for key in ("accuracy", "evidence_fraction", "position_leakage")]
    headings = " | ".join(column.heading for column in columns)
    lines = [
        f"| folder | trained on | test images | {headings} | seconds |",
        "|---|---:|---:|" + "---:|" * len(columns) + "---:|",
    ]
    for name, row in results.items():
        figures = row["figures"]
        cells = " | ".join(column.cell(figures) for column in columns)
        counts = f"{row['train_images']:,} | {figures['images']:,}"
        lines.append(f"| {name} | {counts} | {cells} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def highres_table(results: Results) -> str:
    """Return the results of benchmarks/experiments/highres.py, by model and image side."""
    sides = sorted({row["side"] for row in results["rows"]})
    by_key = {(row["rival"], row["side"]): row for row in results["rows"]}
    lines = [
        f"`{results['model']}`, {results['keypoints']} patches of {results['patch_size']} pixels; "
        f"one image, one thread ({results['machine']}, PyTorch {results['torch']}). Milliseconds. "
        "In brackets: multiply-adds and peak memory above the idle process; rows with "
        "multiply-adds only were not run.",
        "",
        "| | " + " | ".join(f"{side:,}²" for side in sides) + " |",
        "|---|" + "---:|" * len(sides),
    ]
    for name in dict.fromkeys(row["rival"] for row in results["rows"]):
        cells = [_cost(by_key[name, side]) for side in sides]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![Latency and multiply-adds by side](../images/highres.png)"])


def _cost(row: Results) -> str:
    """Return a row's latency, multiply-adds and memory; only multiply-adds if it was not run."""
    macs = row["macs"] / 1e9
    macs_text = f"{macs:,.0f} G" if macs >= 10 else f"{macs:.2f} G"
    if "latency_ms" not in row:
        return f"– ({macs_text})"
    return f"{row['latency_ms']:,.0f} ({macs_text}, {row['memory_mb']:,.0f} MB)"


def highres_accuracy_table(results: Results) -> str:
    """Return the results of benchmarks/experiments/highres_accuracy.py."""
    tasks = ("majority", "max", "topmost", "multi-label", "mean")
    lines = [
        f"{results['test']:,} test images; "
        f"heads and the small CNN trained on {results['train']:,}:",
        "",
        "| | multiply-adds | majority | max | topmost | multi-label | mean |",
        "|---|" + "---:|" * 6,
    ]
    for row in results["rows"]:
        cells = " | ".join(f"{row[task]:.1%}" for task in tasks)
        lines.append(f"| {row['way']} | {row['macs'] / 1e9:.2f} G | {cells} |")
    return "\n".join([*lines, "", "![Accuracy by multiply-adds](../images/highres-accuracy.png)"])


def selection_table(results: Results) -> str:
    """Return the results of benchmarks/experiments/selection.py by training method."""
    tasks = ("digits_shown", "majority", "max", "topmost", "multi-label", "mean")
    settings = results["settings"]
    lines = [
        f"{settings['steps']} steps each, {settings['val']} validation images:",
        "",
        "| method | digits fully inside a patch | majority | max | topmost | multi-label | mean |",
        "|---|" + "---:|" * len(tasks),
    ]
    for name, row in results.items():
        if name != "settings":
            cells = (f"{row[task]:.1%}" for task in tasks)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Published results of other projects: name, patches, epochs, and the accuracies of four tasks.
# Those of IPS are from its training logs.
IPS = ("IPS (Bergner et al. 2023)", "100 of 50×50, out of 900 that are all encoded", 150)
SAMPLING = ("attention sampling (Katharopoulos & Fleuret 2019)", "10 of 50×50", "–")
PEERS = ((*IPS, 0.991, 0.937, 0.927, 0.819), (*SAMPLING, "about 80%", None, None, None))
MEGAPIXEL = "megapixel-mnist-focus"


def megapixel_table() -> str:
    """Return the accuracy on megapixel MNIST, with published results."""
    if MEGAPIXEL not in zoo.names():
        return ""
    card = zoo.card(MEGAPIXEL)
    figures, model = card["figures"], card["recipe"]["model"]
    side = model["patch_size"]
    accuracies = [figures[f"accuracy_{task}"] for task in model["tasks"]]
    patches = f"{model['keypoints']} of {side}×{side}, found on a thumbnail"
    rows = [(f"`{MEGAPIXEL}`", patches, card["epoch"] + 1, *accuracies), *PEERS]
    lines = [
        f"| 1,500×1,500 pixels, test | patches | epochs | {' | '.join(model['tasks'])} | mean |",
        "|---|---|---:|" + "---:|" * 5,
    ]
    for name, evidence, epochs, *values in rows:
        known_values = [value for value in values if isinstance(value, float)]
        mean = sum(known_values) / 4 if len(known_values) == 4 else None
        cells = (_cell(value) for value in (*values, mean))
        lines.append(f"| {name} | {evidence} | {epochs} | " + " | ".join(cells) + " |")
    seeds = load_results(RESULTS / "megapixel_seeds.json")
    if seeds:
        tasks = [seeds["tasks"][task] for task in (*model["tasks"], "mean")]
        cells = (f"{task['mean']:.1%} ± {task['spread']:.1%}" for task in tasks)
        label = f"… mean ± standard deviation of {seeds['seeds']} seeds"
        mean_row = f"| {label} | {patches} | {card['epoch'] + 1} | " + " | ".join(cells) + " |"
        lines.insert(3, mean_row)  # below the row of the zoo's model
    return "\n".join(lines)


def boxes_table(results: Results) -> str:
    """Return the agreement of methods and contributions with boxes of photographs."""
    passes = replace(column_of("cost_forward_passes"), key="passes")
    hits = replace(column_of("pointing_game"), key="hits")
    inside = replace(column_of("energy_inside"), key="inside")
    lines = [
        f"| method | photos | {passes.heading} | {hits.heading} "
        f"| contributions minus method | {inside.heading} | contributions minus method |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results["methods"].items():
        cells = [f"`{name}`", str(row["images"]), passes.cell(row)]
        for column in (hits, inside):
            cells += [column.cell(row), _difference(row[f"{column.key}_above"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(interval: list[float]) -> str:
    """Return a mean and its interval in points, or a dash for a method compared with itself."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if low < high else "–"


def _cell(value: float | str | None) -> str:
    return f"{value:.1%}" if isinstance(value, float) else value or "–"


def results_table(name: str, table: Callable[[Results], str]) -> str:
    """Return the table of benchmarks/results/NAME.json, or a note that it is not measured yet."""
    results = load_results(RESULTS / f"{name}.json")
    return table(results) if results else "*Not measured yet.*"


TABLES: dict[str, Callable[[], str]] = {
    "boxes": partial(results_table, "boxes", boxes_table),
    "onnx": partial(results_table, "onnx", onnx_table),
    "first-hour": partial(results_table, "first_hour", first_hour_table),
    "highres": partial(results_table, "highres", highres_table),
    "highres-accuracy": partial(results_table, "highres_accuracy", highres_accuracy_table),
    "megapixel": megapixel_table,
    "selection": partial(results_table, "selection", selection_table),
    "losses": partial(results_table, "rebuild_losses", losses_table),
    "predict": partial(results_table, "predict", predict_table),
    "scale": partial(results_table, "scale", scale_table),
    "imagenet-options": partial(results_table, "imagenet_options", imagenet_options_table),
    "photo-folds": partial(results_table, "photo_folds", photo_folds_table),
    **{
        f"photos-{data}": partial(results_table, "photos", partial(rows_table, data))
        for data in ("deeppcb", "magnetic-tile", "clothing", "isic2017")
    },
    "photos-gains": partial(results_table, "photos", gains_table),
    "photos-selection": partial(results_table, "photos", crop_selection_table),
    "photos-hits": partial(results_table, "photos", hits_table),
}
