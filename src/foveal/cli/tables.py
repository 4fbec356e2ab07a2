"""Figures of models as text for the terminal."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from foveal.escaping import printable

WIDTH = 100  # columns of a table for a screen, at most
_GAP = "  "

# Heading and format of each figure.
_FIGURES = {
    "accuracy": ("accuracy", "{:.2%}"),
    "accuracy_mean": ("all tasks", "{:.2%}"),
    "rebuilding_mse": ("MSE", "{:.4f}"),
    "rebuilding_ssim": ("SSIM", "{:.3f}"),
    "evidence_fraction": ("evidence", "{:.1%}"),
    "position_leakage": ("leakage", "{:.2f}"),
    "content_following": ("content", "{:.2f}"),
    "position_following": ("position", "{:.2f}"),
    "random_focus_accuracy": ("random focus", "{:.2%}"),
    "sufficiency": ("sufficiency", "{:.2%}"),
    "sufficiency_agreement": ("agreement", "{:.2%}"),
    "necessity": ("necessity", "{:.2%}"),
    "shuffled_attention_accuracy": ("shuffled maps", "{:.2%}"),
    "uniform_attention_accuracy": ("uniform maps", "{:.2%}"),
    "annotated_images": ("annotated", "{:,}"),
    "pointing_game": ("hits", "{:.1%}"),
    "centre_pointing_game": ("centre hits", "{:.1%}"),
    "uniform_pointing_game": ("uniform hits", "{:.1%}"),
    "energy_inside": ("inside", "{:.1%}"),
    "evidence_iou": ("overlap", "{:.2f}"),
    "parameters": ("parameters", "{:,}"),
    "macs": ("MACs", "{:,}"),
    "latency_ms": ("ms/image", "{:.2f}"),
}


class Family(NamedTuple):
    """Models that are compared by the same figures."""

    title: str
    kinds: tuple[str, ...]  # as `config.json` names them; of the last family: all others
    keys: tuple[str, ...]  # the most important first; a narrow screen shows no more than those


_COST = ("latency_ms", "parameters", "macs")
FAMILIES = (
    Family(
        "Focus models: decide from patches",
        ("focus", "glimpse", "zoom", "published"),
        (
            "accuracy",
            "evidence_fraction",
            "position_leakage",
            "content_following",
            "sufficiency",
            *_COST,
        ),
    ),
    Family(
        "High resolution: read patches of large images",
        ("high-res",),
        ("accuracy_mean", "evidence_fraction", "random_focus_accuracy", *_COST),
    ),
    Family(
        "Attention models: weigh the whole image",
        ("attention", "published-attention"),
        ("accuracy", "shuffled_attention_accuracy", "uniform_attention_accuracy", *_COST),
    ),
    Family(
        "Reconstructors: rebuild images, without labels",
        ("reconstructor",),
        ("rebuilding_mse", "rebuilding_ssim", "evidence_fraction", "position_leakage", *_COST),
    ),
    Family("Baselines: look at the whole image", (), ("accuracy", *_COST)),
)


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures of one model, a line each."""
    model, data = printable(figures["model"]), printable(figures["data"])
    return [
        f"{model} on {data} ({figures['images']:,} images)",
        *(
            f"  {heading:<14}{_cell(figures, key):>12}"
            for key, (heading, _) in _FIGURES.items()
            if figures.get(key) is not None
        ),
    ]


def zoo_lines(cards: Sequence[Mapping[str, Any]], width: int | None = WIDTH) -> list[str]:
    """Return a table for each family of models, with an empty line between them.

    Args:
        cards: each with `model`, its `kind` as `config.json` names it, and its figures.
        width: characters of a line; None for all figures, however wide the table.
    """
    lines: list[str] = []
    for family, members in _by_family(cards):
        keys = _FIGURES if width is None else family.keys
        known = [key for key in keys if any(card.get(key) is not None for card in members)]
        lines += [*[""][: len(lines)], family.title, *_table(members, known, width)]
    return lines


def _by_family(
    cards: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Family, list[Mapping[str, Any]]]]:
    family_of = {kind: family for family in FAMILIES for kind in family.kinds}
    for family in FAMILIES:
        members = [card for card in cards if family_of.get(card["kind"], FAMILIES[-1]) is family]
        if members:
            yield family, members


def _table(
    cards: Sequence[Mapping[str, Any]], keys: Sequence[str], width: int | None
) -> Iterator[str]:
    """Yield a heading and a line for each model, with the first figures as the width allows."""
    columns = [_aligned(["", *(printable(card["model"]) for card in cards)], str.ljust)]
    left = math.inf if width is None else width - len(columns[0][0])
    for key in keys:
        column = _aligned([_FIGURES[key][0], *(_cell(card, key) for card in cards)], str.rjust)
        left -= len(_GAP) + len(column[0])
        if left < 0:
            break
        columns.append(column)
    for row in zip(*columns, strict=True):
        yield _GAP.join(row).rstrip()


def _aligned(cells: Sequence[str], align: Callable[[str, int], str]) -> list[str]:
    width = max(map(len, cells))
    return [align(cell, width) for cell in cells]


def _cell(figures: Mapping[str, Any], key: str) -> str:
    value = figures.get(key)
    return "–" if value is None else _FIGURES[key][1].format(value)
