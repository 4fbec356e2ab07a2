"""Tables and pictures of README and docs, from the cards of the zoo and benchmark results.

The zoo is the set of shipped models; the card of a model holds its figures, the values of metrics.

    python tools/figures.py

Tables are placed between `<!-- figures:NAME -->` and `<!-- end -->`; pictures are written to
docs/images, and the headings and formats of the zoo's figures to src/foveal/zoo/columns.json.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import choice
import measured_tables
import report_tables

from foveal import zoo
from foveal.evaluation.report.original import DATASETS, PUBLISHED
from foveal.evaluation.report.tables import markdown_table
from foveal.foundation.columns import Column
from foveal.foundation.files import read_json, write_json
from foveal.metrics.registry import column_of, explanation_columns, model_columns

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ROWS = {
    "focus": "`-focus`: 3 learned patches of 5×5, trained to keep the class out of the keypoints",
    "focus-plain": "`-focus-plain`: the same, trained for accuracy only",
    "glimpse": "`-glimpse`: sees a thumbnail and 3 patches, and nothing else",
    "focus-wide": "`-focus-wide`: learned patches, at most 25% of the pixels",
    "corners": "`-corners`: 3 patches of 5×5 at Harris corners",
    "corners-wide": "`-corners-wide`: patches at corners, at most 25% of the pixels",
    "focus-unlabelled": "`-focus-unlabelled`: 5 patches of 7×7, keypoints learned without labels",
    "focus-published": "`-focus-published`: the original's network, our pipeline",
    "corners-published": "`-corners-published`: the original's network, our pipeline",
    "cnn": "`-cnn`: sees the whole image",
}
ATTENTION = {
    "cifar10-attention": "attends at three depths, one classifier",
    "cifar10-attention-indep": "the same, a classifier for each depth",
    "cifar10-vgg": "the same without attention",
    "cifar10-san": "local self-attention in place of convolutions",
    "cifar10-attention-published": "the original's network, our pipeline; published: 79%",
    "fashion-mnist-attention": "attends at three depths",
    "mnist-attention": "attends at three depths",
}
COST = ("parameters", "macs", "latency_ms")
FOLLOWING = (
    "accuracy",
    "evidence_fraction",
    "position_leakage",
    "content_following",
    "position_following",
)
ATTENTION_KEYS = (
    "accuracy",
    "shuffled_attention_accuracy",
    "uniform_attention_accuracy",
    *COST,
)


def figures(name: str) -> dict[str, Any]:
    """Return the figures on a zoo model's card, empty if there is no such model."""
    return zoo.card(name).get("figures", {}) if name in zoo.names() else {}


def accuracy_table() -> str:
    """Return test accuracy by kind and dataset, with that of the original project."""
    lines = ["| test accuracy | " + " | ".join(DATASETS.values()) + " |", "|---|" + "---|" * 3]
    for kind, label in ROWS.items():
        if kind in PUBLISHED:
            published = " | ".join(f"{PUBLISHED[kind][data]}%" for data in DATASETS)
            lines.append(f"| *the original's {kind} model, as published* | {published} |")
        cells = [column_of("accuracy").cell(figures(f"{data}-{kind}")) for data in DATASETS]
        if set(cells) == {"–"}:
            continue
        is_bold = kind in ("focus", "focus-plain", "focus-wide", "corners", "corners-wide")
        cells = [f"**{cell}**" if is_bold and cell != "–" else cell for cell in cells]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def honesty_table() -> str:
    """Return the cost and honesty figures of every zoo model."""
    return cards_table([*FOLLOWING, "random_focus_accuracy", *COST], tuple(ROWS))


def keypoints_table(*kinds: str) -> str:
    """Return how much each model of some kinds depends on the positions of its patches."""
    return cards_table(FOLLOWING, kinds)


def cards_table(keys: Sequence[str], kinds: Sequence[str]) -> str:
    """Return figures of the zoo's models of some kinds, by dataset."""
    cards = [figures(f"{data}-{kind}") for data in DATASETS for kind in kinds]
    columns = [column_of(key) for key in keys]
    return markdown_table(["model"], columns, [*filter(None, cards)]).rstrip()


def meanings_table(columns: Sequence[Column], with_keys: bool = False) -> str:
    """Return the headings, meanings and directions of figures."""
    headings = ["figure", *(["key"] if with_keys else []), "what it is", "better"]
    lines = [headings, ["---"] * len(headings)]
    for column in columns:
        key = [f"`{column.key}`"] if with_keys else []
        lines.append([column.heading, *key, column.meaning, column.direction])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def honesty_meanings() -> str:
    """Return the meanings of the honesty figures on a card."""
    keys = (*FOLLOWING[1:], "random_focus_accuracy")
    return meanings_table([column_of(key) for key in keys])


def all_meanings() -> str:
    """Return the meanings of all figures in tables, each key once."""
    columns = dict.fromkeys([*model_columns(), *explanation_columns()])
    return meanings_table([*columns], with_keys=True)


def attention_table() -> str:
    """Return the accuracy of the attention family, with and without its maps, and its cost."""
    columns = [column_of(key) for key in ATTENTION_KEYS]
    lines = [
        f"| model | | {' | '.join(column.heading for column in columns)} |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for name, description in ATTENTION.items():
        card = figures(name)
        if card:
            cells = [f"`{name}`", description, *(column.cell(card) for column in columns)]
            lines.append("| " + " | ".join(cells) + " |")
    fallback = "None is in the zoo yet; `foveal train cifar10-attention` trains one."
    return "\n".join(lines) if len(lines) > 2 else fallback


def cost_table() -> str:
    """Return the results of performance/attention.py and experiments/seeds.py in benchmarks/."""
    lines = []
    costs, seeds = (
        report_tables.load_results(RESULTS / f"{name}.json") for name in ("attention", "seeds")
    )
    if costs:
        macs, latency = column_of("macs"), column_of("latency_ms")
        lines += [
            f"| | {macs.heading} | {latency.heading} | training images/s |",
            "|---|---:|---:|---:|",
            *(
                f"| `{name}` | {macs.cell(row)} | {latency.cell(row)} "
                f"| {row['trained_images_per_second']} |"
                for name, row in costs.items()
                if name in ATTENTION
            ),
            f"\nMeasured in alternation, attention is {costs['latency_ratio'] - 1:.1%} slower "
            f"(median ratio of {costs['rounds']} rounds; {costs['machine']}, "
            f"`python benchmarks/performance/attention.py --rounds {costs['rounds']}`). The "
            "latencies of the other attention table come from another run: compare only within a "
            "table.",
        ]
    if seeds:
        lines += [
            f"\n| {seeds['epochs']} epochs, test accuracy | mean | spread | each seed |",
            "|---|---:|---:|---|",
            *(
                f"| `{name}` | {_percent(row['mean'])} | ± {_percent(row['spread'])} "
                f"| {', '.join(map(_percent, row['accuracies']))} |"
                for name, row in seeds["models"].items()
            ),
            f"\nThe same recipe with {seeds['seeds']} seeds"
            f"{', at half the width' if seeds.get('changes') else ''} "
            f"(`python benchmarks/experiments/seeds.py --epochs {seeds['epochs']} "
            f"--precision {seeds['precision']}`).",
        ]
    return "\n".join(lines)


def speed_table() -> str:
    """Return the results of benchmarks/performance/speed.py."""
    results = report_tables.load_results(RESULTS / "speed.json")
    if not results:
        return "Not measured yet on a quiet machine: `make speed` does it."
    ours, original = results["mnist-focus-plain"], results["mnist-focus-published"]
    lines = [
        "| training to 98% of the MNIST validation images | seconds | epochs | final accuracy "
        "| training images/s | inference images/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, row in (
        ("`mnist-focus-plain`'s recipe, with a schedule of 6 epochs", ours),
        ("`mnist-focus-published`, the original training recipe", original),
    ):
        lines.append(
            f"| {label} | {row['seconds']:.0f} | {row['epochs']} | {row['val_accuracy']:.2%} "
            f"| {row['train_images_per_second']:,} | {row['inference_images_per_second']:,} |"
        )
    faster, source = f"{results['ratio']} times faster", f"({results['machine']}, `make speed`)"
    if not original["reached"]:
        faster = f"At least {faster}, as the original training recipe had not reached 98% by then"
    lines.append(f"\n{faster} {source}.")
    return "\n".join(lines)


def rebuilding_table() -> str:
    """Return the results of benchmarks/experiments/rebuilding.py."""
    results = report_tables.load_results(RESULTS / "rebuilding.json")
    if not results:
        return ""
    controls = ("random", "grid", "harris", "centre")
    mse, ssim = column_of("rebuilding_mse"), column_of("rebuilding_ssim")
    lines = [
        f"| {mse.heading} ({ssim.heading}) | patches | learned | random | grid | Harris | centre "
        "| lower by |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for data, row in results.items():
        side = row["patch_size"]
        cells = [f"`{data}-saliency`", f"{row['keypoints']} of {side}×{side}"]
        for detector in ("learned", *controls):
            error = row["errors"][detector]
            cells.append(f"{mse.cell(error)} ({ssim.cell(error)})")
        lines.append("| " + " | ".join([*cells, _percent(row["lower_by"], 0)]) + " |")
    return "\n".join(lines)


def few_labels_table() -> str:
    """Return the results of benchmarks/experiments/few_labels.py."""
    results = report_tables.load_results(RESULTS / "few_labels.json")
    if not results:
        return ""
    lines = [
        f"| {results['labels']} labels, {results['draws']} draws | mean | spread | each draw |",
        "|---|---:|---:|---|",
        *(
            f"| {variant} | {_percent(row['mean'])} | ± {_percent(row['spread'])} "
            f"| {', '.join(map(_percent, row['accuracies']))} |"
            for variant, row in results["ways"].items()
        ),
    ]
    return "\n".join(lines)


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value * 100:.{digits}f}%"


TABLES = {
    "accuracy": accuracy_table,
    "honesty": honesty_table,
    "honesty-meanings": honesty_meanings,
    "metrics": all_meanings,
    "price": partial(keypoints_table, "focus-plain", "focus"),
    "attention": attention_table,
    "cost": cost_table,
    "rebuilding": rebuilding_table,
    "unlabelled": partial(keypoints_table, "focus-unlabelled", "focus-plain"),
    "few-labels": few_labels_table,
    "speed": speed_table,
    "choice": choice.choice_table,
    **measured_tables.TABLES,
    **report_tables.TABLES,
}


def fill(text: str) -> str:
    """Return a Markdown text with every marked table regenerated."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- figures:{name} -->\n).*?(<!-- end -->)"
        content = table()
        text = re.sub(
            pattern,
            lambda match, content=content: f"{match[1]}\n{content}\n\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
    return text


def draw_pictures() -> None:
    """Draw the README's pictures: digits of `mnist-5k` with explanations by zoo models."""
    import torch

    from foveal.datasets import load_images
    from foveal.plotting import attention_grid, rebuilding_grid

    images = load_images("mnist-5k", "test")
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("mnist-focus", "mnist-corners"):
        if name not in zoo.names():
            continue
        model = zoo.load(name)
        for label in (3, 8):
            index = int((images.labels == label).nonzero()[0])
            explanation = model.explain(images.images[index : index + 1].float() / 255)
            explanation.figure(0).savefig(folder / f"{name}-{label}.png")
    if "mnist-attention" in zoo.names():
        indices = torch.stack([(images.labels == label).nonzero()[0, 0] for label in (3, 4, 8)])
        explanation = zoo.load("mnist-attention").explain(images.images[indices].float() / 255)
        grid = attention_grid(explanation, images.labels[indices])
        grid.savefig(folder / "mnist-attention.png")
    if "mnist-saliency" in zoo.names():
        indices = torch.stack([(images.labels == label).nonzero()[0, 0] for label in (2, 5, 8)])
        explanation = zoo.load("mnist-saliency").explain(images.images[indices].float() / 255)
        rebuilding_grid(explanation).savefig(folder / "mnist-saliency.png")


def draw_comparisons() -> None:
    """Draw the plots of docs/report.md from the results of `make report`."""
    from foveal.evaluation.report.compare_page import result_plots
    from foveal.plotting import save_figure

    for path in sorted((ROOT / "benchmarks" / "results" / "models").glob("*.json")):
        results = read_json(path)
        plots = result_plots(results["models"], results["explanations"])
        for name in ("accuracy-evidence", "judged-evidence"):
            if name in plots:
                picture = ROOT / "docs" / "images" / f"{path.stem}-{name}.png"
                save_figure(plots[name], picture)


def draw_photograph(path: Path) -> None:
    """Draw a photograph with its explanation by the model of photographs.

    The photograph is Rachel Michetti's cup of coffee, CC0, included in scikit-image.
    """
    from PIL import Image, ImageOps
    from skimage import data

    from foveal.workflows.explain import explain_files

    with TemporaryDirectory() as folder:
        photo = Path(folder) / "coffee.png"
        Image.fromarray(data.coffee()).save(photo)
        records, _ = explain_files("imagenet", [photo], Path(folder) / "out")
        with Image.open(records[0]["picture"]) as picture:  # reduced, for a smaller file
            small = ImageOps.contain(picture.convert("RGB"), (1000, 1000), Image.Resampling.LANCZOS)
            small.save(path, optimize=True)


def write_columns(path: Path) -> None:
    """Write the columns of the figures on the zoo's cards, which `foveal models` shows."""
    keys = {key for name in zoo.names() for key in figures(name)}
    write_json(path, [vars(column) for column in model_columns() if column.key in keys])


def main() -> None:
    write_columns(ROOT / "src" / "foveal" / "zoo" / "columns.json")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        path.write_text(fill(path.read_text(encoding="utf-8")), encoding="utf-8")
    draw_pictures()
    draw_comparisons()
    draw_photograph(ROOT / "docs" / "images" / "imagenet-coffee.png")


if __name__ == "__main__":
    main()
