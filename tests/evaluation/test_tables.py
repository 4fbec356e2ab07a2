"""The zoo as tables for a screen."""

import pytest

from foveal import zoo
from foveal.cli.tables import FAMILIES, figure_lines, zoo_lines
from foveal.evaluation.evaluate import zoo_cards
from foveal.metrics.registry import model_columns


@pytest.fixture(scope="module")
def cards():
    return zoo_cards()


@pytest.mark.parametrize("width", [100, 80, 60])
def test_the_tables_are_no_wider_than_the_screen_and_name_every_model_once(cards, width):
    lines = zoo_lines(cards, width)
    assert max(map(len, lines)) <= width
    named = [line.split()[0] for line in lines if line and line.split()[0] in zoo.names()]
    assert sorted(named) == zoo.names()
    assert all(
        "accuracy" in line or "MSE" in line or "mean accuracy" in line for line in heads(lines)
    )


def heads(lines):
    return [line for line in lines if line.startswith(" ")]


def test_each_family_has_columns_of_its_own(cards):
    text = "\n".join(zoo_lines(cards))
    assert all(family.title in text for family in FAMILIES)
    assert len(heads(zoo_lines(cards))) == len(FAMILIES)
    assert "–" not in next(line for line in zoo_lines(cards) if line.startswith("mnist-attention"))


def test_a_model_of_crops_is_listed_with_the_focus_models(cards):
    lines = zoo_lines(cards)
    end = next(index for index, line in enumerate(lines) if not line)
    assert lines[0].startswith("Focus models")
    assert any(line.startswith("pcb-focus") for line in lines[:end])


def test_all_figures_are_shown_where_the_width_does_not_count(cards):
    (head, *_) = heads(zoo_lines(cards, None))
    assert "necessity" in head
    assert "MACs" in head
    assert "MSE" not in head  # no focus model rebuilds


def test_the_columns_of_the_zoo_are_those_of_the_metrics_that_its_cards_have(cards):
    known = set().union(*cards)
    current = [column for column in model_columns() if column.key in known]
    assert zoo.columns() == current, "run tools/figures.py, which writes zoo/columns.json"
    assert {key for family in FAMILIES for key in family.keys} <= {c.key for c in current}


def test_a_model_of_an_unknown_kind_or_without_figures_is_listed():
    lines = zoo_lines([{"model": "a\x1b", "kind": "new"}, {"model": "b", "kind": "cnn"}])
    assert lines[-2:] == ["a\\x1b", "b"]


def test_figures_of_one_model_are_lines_and_its_names_cannot_break_them():
    lines = figure_lines({"model": "a\nb", "data": "\x1b", "images": 1000, "accuracy": 0.5})
    assert lines == ["a\\nb on \\x1b (1,000 images)", "  accuracy               50.00%"]
