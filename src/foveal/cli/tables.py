"""Tables of models and their figures, which are values of metrics, for the terminal."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from foveal import zoo
from foveal.foundation.columns import Column, present_columns
from foveal.foundation.escaping import printable

WIDTH = 100  # maximum characters per line of a table on a screen
_GAP = "  "


class Family(NamedTuple):
    """A family of models and the figures to compare them by."""

    title: str
    kinds: tuple[str, ...]  # names of models in `config.json`; empty for all that no family lists
    keys: tuple[str, ...]  # keys of the figures to show, the most important first


_COST = ("latency_ms", "parameters", "macs")
FAMILIES = (
    Family(
        "Focus models: decide from patches",
        ("focus", "crops", "glimpse", "zoom", "published"),
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
        "Attention models: weight the whole image",
        ("attention", "published-attention"),
        ("accuracy", "shuffled_attention_accuracy", "uniform_attention_accuracy", *_COST),
    ),
    Family(
        "Reconstructors: rebuild images, without labels",
        ("reconstructor",),
        ("rebuilding_mse", "rebuilding_ssim", "evidence_fraction", "position_leakage", *_COST),
    ),
    Family("Baselines: decide from the whole image", (), ("accuracy", *_COST)),
)


def figure_lines(figures: Mapping[str, Any]) -> list[str]:
    """Return the figures of one model, one per line."""
    from foveal.metrics.registry import model_columns  # imports PyTorch

    model, data = printable(figures["model"]), printable(figures["data"])
    return [
        f"{model} on {data} ({figures['images']:,} images)",
        *(
            f"  {column.heading:<17}{column.cell(figures):>12}"
            for column in present_columns(model_columns(), [figures])
        ),
    ]


def zoo_lines(cards: Sequence[Mapping[str, Any]], width: int | None = WIDTH) -> list[str]:
    """Return one table per family of models, separated by empty lines.

    Args:
        cards: `model`, `kind` (the name in `config.json`) and figures of each model.
        width: maximum characters per line, for which the last figures of a family are left out;
            None for all figures, however wide the table.
    """
    lines: list[str] = []
    columns = {column.key: column for column in zoo.columns()}
    for family, members in _by_family(cards):
        keys = columns if width is None else family.keys
        table_columns = present_columns([columns[key] for key in keys], members)
        separator = [""] if lines else []
        lines += [*separator, family.title, *_table(members, table_columns, width)]
    return lines


def _by_family(
    cards: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Family, list[Mapping[str, Any]]]]:
    """Yield each family that has models, with their cards, in the order of `FAMILIES`."""
    family_of = {kind: family for family in FAMILIES for kind in family.kinds}
    for family in FAMILIES:
        members = [card for card in cards if family_of.get(card["kind"], FAMILIES[-1]) is family]
        if members:
            yield family, members


def _table(
    cards: Sequence[Mapping[str, Any]], columns: Sequence[Column], width: int | None
) -> Iterator[str]:
    """Yield a line of headings and one line per model, with as many figures as fit the width."""
    table = [_align(["", *(printable(card["model"]) for card in cards)], str.ljust)]
    remaining = math.inf if width is None else width - len(table[0][0])
    for column in columns:
        cells = _align([column.heading, *(column.cell(card) for card in cards)], str.rjust)
        remaining -= len(_GAP) + len(cells[0])
        if remaining < 0:
            break
        table.append(cells)
    for row in zip(*table, strict=True):
        yield _GAP.join(row).rstrip()


def _align(cells: Sequence[str], align: Callable[[str, int], str]) -> list[str]:
    """Return the cells of a column, padded to equal width by `str.ljust` or `str.rjust`."""
    width = max(map(len, cells))
    return [align(cell, width) for cell in cells]
