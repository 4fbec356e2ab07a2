"""Tables of benchmark results, each from its JSON file in benchmarks/results."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from photo_rows import gains_table, hits_table, rows_table, selection_rows
from report_tables import RESULTS, known

from foveal import zoo
from foveal.metrics.registry import column_of

Measured = dict[str, Any]  # content of a benchmark's JSON file


def losses_table(found: Measured) -> str:
    """Return the effect of each loss term on keypoints learned by reconstruction."""
    keys = ("rebuilding_mse", "rebuilding_ssim", "evidence_fraction", "position_leakage")
    columns = [column_of(key) for key in keys]
    lines = [
        f"| `{found['data']}`, {found['epochs']} epochs, validation images | "
        f"{' | '.join(column.heading for column in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for way, row in found["ways"].items():
        weights = ", ".join(f"{weight:g}" for weight in row["weights"].values())
        cells = " | ".join(column.cell(row) for column in columns)
        lines.append(f"| {way} ({weights}) | {cells} |")
    return "\n".join(lines)


def predict_table(found: Measured) -> str:
    """Return the speed of `foveal predict` and of its parts alone."""
    rates, steady = found["images_per_second"], found.get("steady_images_per_second", {})
    rows = [
        ("decoding, bare", rates["decoding"]),
        ("the model on decoded images, bare", rates["inference"]),
        ("`--engine local`, whole runs", rates["local"]),
        *(
            (f"`--engine {name}` beside Ray's processes, without its start-up", median(all_))
            for name, all_ in steady.items()
        ),
    ]
    lines = [
        f"| {found['images']:,} JPEGs of 28×28 pixels, {found['cores']} cores "
        "| images per second |",
        "|---|---:|",
        *(f"| {what} | {rate:,.0f} |" for what, rate in rows),
        f"\nThe local engine reaches {found['local_share_of_slower']:.0%} of its slower part.",
    ]
    spoilt = found["spoilt"]
    lines.append(
        f"With {spoilt['spoilt']} of the files cut short, {spoilt['rows_with_an_error']} rows have "
        f"an error and the other {spoilt['rows_as_before']:,} are as before."
    )
    return "\n".join(lines)


def imagenet_options_table(found: Measured) -> str:
    """Return the accuracy of `imagenet` by preprocessing."""
    lines = ["| photograph | odd numbers | even numbers | all |", "|---|---:|---:|---:|"]
    for row in found["ways"]:
        cells = " | ".join(f"{row[part]:.1%}" for part in ("odd", "even", "all"))
        lines.append(f"| {row['way']} | {cells} |")
    return "\n".join(lines)


def photo_folds_table(found: Measured) -> str:
    """Return cross-validated results of attention and a linear layer on the pretrained backbone."""
    lines = [
        f"| {found['folds']} folds | images (groups) | accuracy | linear | difference, points "
        "| mean per-class accuracy | linear | difference, points |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        groups = f" ({row['groups']:,})" if row["groups"] else ""
        cells = [f"`{row['data']}-attention`", f"{row['images']:,}{groups}"]
        for ours, theirs, gain in (
            ("accuracy", "linear", "gain"),
            ("balanced", "linear_balanced", "balanced_gain"),
        ):
            low, high = (100 * row[gain][end] for end in ("low", "high"))
            difference = f"{100 * row[gain]['value']:+.1f} ({low:+.1f} to {high:+.1f})"
            cells += [f"{row[ours]['value']:.1%}", f"{row[theirs]['value']:.1%}", difference]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def scale_table(found: Measured) -> str:
    """Return the single-machine measurements behind docs/scale.md."""
    decoding, listing, adding = found["decoding"], found["listing"], found["adding_up"]
    rows = [
        (
            f"decoding and shrinking a photo of {found['photo_bytes'] / 1e3:.0f} KB",
            f"{decoding['ms_of_a_core']:.1f} ms of a core; {decoding['cores']} cores do "
            f"{decoding['share_of_so_many_single_cores']:.0%} of {decoding['cores']} times as much",
        ),
        (
            "listing files on a disk",
            f"{listing['names_per_second_of_many_folders']:,.0f} names per second, "
            f"{listing['bytes_of_the_listing_per_name']:.1f} bytes each in the listing",
        ),
        ("an image in the plan of a run", f"{found['plan']['bytes_per_image']:.0f} bytes"),
        (
            "writing and syncing a shard of 2,048 rows",
            f"{found['writing']['ms_of_a_shard']:.1f} ms, "
            f"{found['writing']['bytes_of_a_row']:.0f} bytes per row",
        ),
        (
            "all-reduce of the gradients of `cifar10-focus-plain` (gloo, all on these cores)",
            ", ".join(f"{key.split('_')[2]} processes {ms:.1f} ms" for key, ms in adding.items()),
        ),
    ]
    lines = [
        f"| `python benchmarks/performance/scale.py`, {found['cores']} cores | measured |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| {what} | {value} |" for what, value in rows)])


def onnx_table(found: Measured) -> str:
    """Return the results of benchmarks/performance/onnx_latency.py."""
    lines = [
        "One image, one thread, logits alone: microseconds (median), by "
        "`benchmarks/performance/onnx_latency.py`. `int8` is the part of the graph in 8 "
        "bits; there is none if more than 0.2 points of accuracy on the validation images would be "
        "lost. Accuracies are those on the test images. "
        f" {found['machine']}, PyTorch {found['torch']}, "
        f"ONNX Runtime {found['onnxruntime']}.",
        "",
        "![Times faster than eager PyTorch](images/onnx.png)",
        "",
        "| model | parameters | eager | ONNX | times faster | int8 | int8 µs | accuracy | int8 "
        "accuracy | kB | int8 kB |",
        "|---|" + "---:|" * 4 + "---|" + "---:|" * 5,
    ]
    for row in found["models"]:
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


def first_hour_table(found: Measured) -> str:
    """Return the results of benchmarks/experiments/first_hour.py."""
    columns = [column_of(key) for key in ("accuracy", "evidence_fraction", "position_leakage")]
    heads = " | ".join(column.heading for column in columns)
    lines = [
        f"| folder | trained on | test images | {heads} | seconds |",
        "|---|---:|---:|" + "---:|" * len(columns) + "---:|",
    ]
    for name, row in found.items():
        figures = row["figures"]
        cells = " | ".join(column.cell(figures) for column in columns)
        counts = f"{row['train_images']:,} | {figures['images']:,}"
        lines.append(f"| {name} | {counts} | {cells} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def highres_table(found: Measured) -> str:
    """Return the results of benchmarks/experiments/highres.py, by model and image side."""
    sides = sorted({row["side"] for row in found["rows"]})
    by_place = {(row["rival"], row["side"]): row for row in found["rows"]}
    lines = [
        f"`{found['model']}`, {found['keypoints']} patches of {found['patch_size']} pixels; one "
        f"image, one thread ({found['machine']}, PyTorch {found['torch']}). Milliseconds. "
        "In brackets: multiply-adds and peak memory above the idle process; rows with "
        "multiply-adds only were not run.",
        "",
        "| | " + " | ".join(f"{side:,}²" for side in sides) + " |",
        "|---|" + "---:|" * len(sides),
    ]
    for name in dict.fromkeys(row["rival"] for row in found["rows"]):
        cells = [_cost(by_place[name, side]) for side in sides]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![Latency and multiply-adds by side](../images/highres.png)"])


def _cost(row: Measured) -> str:
    macs = row["macs"] / 1e9
    counted = f"{macs:,.0f} G" if macs >= 10 else f"{macs:.2f} G"
    if "latency_ms" not in row:
        return f"– ({counted})"
    return f"{row['latency_ms']:,.0f} ({counted}, {row['memory_mb']:,.0f} MB)"


def reached_table(found: Measured) -> str:
    """Return the results of benchmarks/experiments/highres_accuracy.py."""
    tasks = ("majority", "max", "topmost", "multi-label", "mean")
    lines = [
        f"{found['test']:,} test images; heads and the small CNN trained on {found['train']:,}:",
        "",
        "| | multiply-adds | majority | max | topmost | multi-label | mean |",
        "|---|" + "---:|" * 6,
    ]
    for row in found["rows"]:
        cells = " | ".join(f"{row[task]:.1%}" for task in tasks)
        lines.append(f"| {row['way']} | {row['macs'] / 1e9:.2f} G | {cells} |")
    return "\n".join([*lines, "", "![Accuracy by multiply-adds](../images/highres-accuracy.png)"])


def selection_table(found: Measured) -> str:
    """Return the results of benchmarks/experiments/selection.py by training method."""
    tasks = ("digits_shown", "majority", "max", "topmost", "multi-label", "mean")
    settings = found["settings"]
    lines = [
        f"{settings['steps']} steps each, {settings['val']} validation images:",
        "",
        "| method | digits fully inside a patch | majority | max | topmost | multi-label | mean |",
        "|---|" + "---:|" * len(tasks),
    ]
    for name, row in found.items():
        if name != "settings":
            cells = (f"{row[task]:.1%}" for task in tasks)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# As their authors give them; IPS' are of its published training logs.
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
    own = [figures[f"accuracy_{task}"] for task in model["tasks"]]
    patches = f"{model['keypoints']} of {side}×{side}, found on a thumbnail"
    rows = [(f"`{MEGAPIXEL}`", patches, card["epoch"] + 1, *own), *PEERS]
    lines = [
        f"| 1,500×1,500 pixels, test | patches | epochs | {' | '.join(model['tasks'])} | mean |",
        "|---|---|---:|" + "---:|" * 5,
    ]
    for name, seen, epochs, *shares in rows:
        exact = [share for share in shares if isinstance(share, float)]
        mean = sum(exact) / 4 if len(exact) == 4 else None
        cells = (_told(share) for share in (*shares, mean))
        lines.append(f"| {name} | {seen} | {epochs} | " + " | ".join(cells) + " |")
    seeds = known(RESULTS / "megapixel_seeds.json")
    if seeds:
        found = [seeds["tasks"][task] for task in (*model["tasks"], "mean")]
        cells = (f"{task['mean']:.1%} ± {task['spread']:.1%}" for task in found)
        said = f"… mean ± standard deviation of {seeds['seeds']} seeds"
        lines.insert(3, f"| {said} | {patches} | {card['epoch'] + 1} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def boxes_table(found: Measured) -> str:
    """Return the agreement of methods and contributions with boxes of photographs."""
    passes = replace(column_of("cost_forward_passes"), key="passes")
    hits = replace(column_of("pointing_game"), key="hits")
    inside = replace(column_of("energy_inside"), key="inside")
    lines = [
        f"| method | photos | {passes.heading} | {hits.heading} "
        f"| contributions minus method | {inside.heading} | contributions minus method |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in found["methods"].items():
        cells = [f"`{name}`", str(row["images"]), passes.cell(row)]
        for column in (hits, inside):
            cells += [column.cell(row), _difference(row[f"{column.key}_above"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(interval: list[float]) -> str:
    """Return a mean and its interval in points, or a dash for a method compared with itself."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if low < high else "–"


def _told(share: float | str | None) -> str:
    return f"{share:.1%}" if isinstance(share, float) else share or "–"


def written(name: str, table: Callable[[Measured], str]) -> str:
    """Return the table of benchmarks/results/NAME.json, or a note that it is not measured yet."""
    found = known(RESULTS / f"{name}.json")
    return table(found) if found else "*Not measured yet.*"


TABLES: dict[str, Callable[[], str]] = {
    "boxes": partial(written, "boxes", boxes_table),
    "onnx": partial(written, "onnx", onnx_table),
    "first-hour": partial(written, "first_hour", first_hour_table),
    "highres": partial(written, "highres", highres_table),
    "highres-accuracy": partial(written, "highres_accuracy", reached_table),
    "megapixel": megapixel_table,
    "selection": partial(written, "selection", selection_table),
    "losses": partial(written, "rebuild_losses", losses_table),
    "predict": partial(written, "predict", predict_table),
    "scale": partial(written, "scale", scale_table),
    "imagenet-options": partial(written, "imagenet_options", imagenet_options_table),
    "photo-folds": partial(written, "photo_folds", photo_folds_table),
    **{
        f"photos-{data}": partial(written, "photos", partial(rows_table, data))
        for data in ("deeppcb", "magnetic-tile", "clothing", "isic2017")
    },
    "photos-gains": partial(written, "photos", gains_table),
    "photos-selection": partial(written, "photos", selection_rows),
    "photos-hits": partial(written, "photos", hits_table),
}
