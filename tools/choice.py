"""Table of docs/which-model.md: accuracy, cost and trustworthiness of the zoo, from its cards."""

from typing import Any

from foveal import zoo
from foveal.evaluation.report.original import DATASETS
from foveal.metrics.registry import column_of
from foveal.models import MODELS

PHOTOGRAPHS = {"clothing": "Photographs of garments", "pcb": "Photographs of circuit boards"}
# Parts of the names of models that are not in the table: those only for comparison, and those that
# are not classifiers.
EXCLUDED = ("published", "judge", "saliency")
KEYS = ("accuracy", "evidence_fraction", "macs")
MIN_FOLLOWING = 0.5  # minimum fraction of predictions that follow the pixels, or the positions
MIN_DROP = 0.02  # minimum loss of accuracy with uniform maps


def choice_table() -> str:
    """Return the zoo's models by dataset, the most accurate first."""
    headings = " | ".join(column_of(key).heading for key in KEYS)
    lines = [
        f"| model | {headings} | can its explanation be trusted? |",
        "|---|---:|---:|---:|---|",
    ]
    for data, title in (DATASETS | PHOTOGRAPHS).items():
        cards = [
            zoo.card(name).get("figures", {}) for name in zoo.names() if _belongs_to(name, data)
        ]
        rows = sorted(cards, key=lambda card: -card.get("accuracy", 0))
        lines += [f"| **{title}** | | | | |", *(_row(card) for card in rows if "accuracy" in card)]
    return "\n".join(lines)


def _belongs_to(name: str, data: str) -> bool:
    return name.startswith(f"{data}-") and not any(part in name for part in EXCLUDED)


def _row(card: dict[str, Any]) -> str:
    cells = [
        f"`{card['model']}`",
        *(column_of(key).cell(card) for key in KEYS),
        trust_summary(card),
    ]
    return "| " + " | ".join(cells) + " |"


def trust_summary(card: dict[str, Any]) -> str:
    """Return a verbal summary of a card's figures on the model's explanation."""
    kind = zoo.card(card["model"])["recipe"]["model"]["name"]
    if kind == "glimpse":
        return (
            "yes: its keypoints can reveal no more than the thumbnail, which is shown; with "
            f"another image's keypoints its accuracy is {card['random_focus_accuracy']:.1%}"
        )
    if "content_following" in card:
        pixels, positions = card["content_following"], card["position_following"]
        summary = (
            f"{pixels:.1%} of its predictions follow the pixels, {positions:.1%} the positions"
        )
        if positions >= MIN_FOLLOWING:
            return (
                f"no: {positions:.1%} of its predictions follow the positions, "
                "whatever the patches show"
            )
        return f"yes: {summary}" if pixels > MIN_FOLLOWING else f"in part: {summary}"
    if "uniform_attention_accuracy" in card:
        uniform_drop = card["accuracy"] - card["uniform_attention_accuracy"]
        shuffled_drop = card["accuracy"] - card["shuffled_attention_accuracy"]
        verdict, qualifier = ("in part", "") if uniform_drop >= MIN_DROP else ("hardly", "only ")
        with_shuffled_maps = f"with those of another image {100 * shuffled_drop:.1f}"
        if uniform_drop <= 0:
            return f"{verdict}: with uniform maps it loses no accuracy, {with_shuffled_maps} points"
        return (
            f"{verdict}: with uniform maps it loses {qualifier}{100 * uniform_drop:.1f} points of "
            f"accuracy, {with_shuffled_maps}"
        )
    if MODELS[kind].evidence_kind == "maps":
        return "its maps sum the weights of many windows: treat them like a post-hoc explanation"
    return "has none of its own: use a post-hoc method"
