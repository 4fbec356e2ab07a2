"""The tables of what benchmarks measured, each from its JSON file in docs/."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from report_tables import DOCS, known

Measured = dict[str, Any]  # what a benchmark wrote


def losses_table(found: Measured) -> str:
    """Return what each term of the loss does to keypoints learned by rebuilding."""
    lines = [
        f"| `{found['data']}`, {found['epochs']} epochs, validation images | MSE | SSIM "
        "| pixels seen | leakage |",
        "|---|---:|---:|---:|---:|",
    ]
    for way, row in found["ways"].items():
        weights = ", ".join(f"{weight:g}" for weight in row["weights"].values())
        lines.append(
            f"| {way} ({weights}) | {row['rebuilding_mse']:.4f} | {row['rebuilding_ssim']:.3f} "
            f"| {row['evidence_fraction']:.1%} | {row['position_leakage']:.2f} |"
        )
    return "\n".join(lines)


def predict_table(found: Measured) -> str:
    """Return how fast `foveal predict` is beside its parts, bare."""
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
        f"| {found['images']:,} JPEGs of 28x28 pixels, {found['cores']} cores | images a second |",
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


def scale_table(found: Measured) -> str:
    """Return what one machine can show of what the plan reckons with."""
    decoding, listing, adding = found["decoding"], found["listing"], found["adding_up"]
    rows = [
        (
            f"decoding and shrinking a photo of {found['photo_bytes'] / 1e3:.0f} KB",
            f"{decoding['ms_of_a_core']:.1f} ms of a core; {decoding['cores']} cores do "
            f"{decoding['share_of_so_many_single_cores']:.0%} of {decoding['cores']} times as much",
        ),
        (
            "listing files on a disk",
            f"{listing['names_per_second_of_many_folders']:,.0f} names a second, "
            f"{listing['bytes_of_the_listing_per_name']:.1f} bytes each in the listing",
        ),
        ("an image in the plan of a run", f"{found['plan']['bytes_per_image']:.0f} bytes"),
        (
            "writing and syncing a shard of 2,048 rows",
            f"{found['writing']['ms_of_a_shard']:.1f} ms, "
            f"{found['writing']['bytes_of_a_row']:.0f} bytes a row",
        ),
        (
            "adding up the gradients of `cifar10-focus` (gloo, all on these cores)",
            ", ".join(f"{key.split('_')[2]} processes {ms:.1f} ms" for key, ms in adding.items()),
        ),
    ]
    lines = [f"| `python benchmarks/scale.py`, {found['cores']} cores | measured |", "|---|---|"]
    return "\n".join([*lines, *(f"| {what} | {value} |" for what, value in rows)])


def onnx_table(found: Measured) -> str:
    """Return what benchmarks/onnx_latency.py measured."""
    lines = [
        "One image, one thread, logits alone: microseconds (median), by "
        "`benchmarks/onnx_latency.py`. `int8` says what of the graph is of 8 bits; it is left out "
        "where more than 0.2 points of accuracy on the validation images would be lost. Accuracies "
        f"are of the test images. {found['machine']}, PyTorch {found['torch']}, ONNX Runtime "
        f"{found['onnxruntime']}.",
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
    """Return what a newcomer's three folders of photos came to."""
    rows = [
        f"| {name} | {row['train_images']:,} | {row['figures']['accuracy']:.1%} of "
        f"{row['figures']['images']} | {row['figures']['evidence_fraction']:.0%} "
        f"| {row['figures']['position_leakage']:.0%} | {row['seconds']:.0f} |"
        for name, row in found.items()
    ]
    head = "| folder | trained on | test images right | pixels seen | its places alone | seconds |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|", *rows])


def written(name: str, table: Callable[[Measured], str]) -> str:
    """Return the table of docs/NAME.json, or nothing where it is not measured yet."""
    found = known(DOCS / f"{name}.json")
    return table(found) if found else ""


TABLES: dict[str, Callable[[], str]] = {
    "onnx": partial(written, "onnx", onnx_table),
    "first-hour": partial(written, "first_hour", first_hour_table),
    "losses": partial(written, "rebuild_losses", losses_table),
    "predict": partial(written, "predict", predict_table),
    "scale": partial(written, "scale", scale_table),
}
