"""Tables of the zoo (the trained models that Foveal ships) for a terminal."""

import pytest

from foveal import zoo
from foveal.cli.tables import FAMILIES, figure_lines, zoo_lines
from foveal.evaluation.evaluate import zoo_cards
from foveal.metrics.registry import model_columns


@pytest.fixture(scope="module")
def cards():
    return zoo_cards()


@pytest.mark.parametrize("width", [100, 80, 60])
def test_tables_fit_the_width_and_list_every_model_once(cards, width):
    lines = zoo_lines(cards, width)
    assert max(map(len, lines)) <= width
    listed_models = [line.split()[0] for line in lines if line and line.split()[0] in zoo.names()]
    assert sorted(listed_models) == zoo.names()
    assert all(
        "accuracy" in line or "MSE" in line or "mean accuracy" in line
        for line in heading_lines(lines)
    )


def heading_lines(lines):
    """Return the lines with column headings: only they begin with a space."""
    return [line for line in lines if line.startswith(" ")]


def test_each_family_has_its_own_columns(cards):
    text = "\n".join(zoo_lines(cards))
    assert all(family.title in text for family in FAMILIES)
    assert len(heading_lines(zoo_lines(cards))) == len(FAMILIES)
    assert "–" not in next(line for line in zoo_lines(cards) if line.startswith("mnist-attention"))


def test_crop_model_is_listed_with_the_focus_models(cards):
    lines = zoo_lines(cards)
    end = next(index for index, line in enumerate(lines) if not line)  # of the first table
    assert lines[0].startswith("Focus models")
    assert any(line.startswith("pcb-focus") for line in lines[:end])


def test_all_columns_are_shown_at_unlimited_width(cards):
    (focus_heading, *_) = heading_lines(zoo_lines(cards, None))
    assert "necessity" in focus_heading
    assert "MACs" in focus_heading
    assert "MSE" not in focus_heading  # focus models reconstruct no images


def test_zoo_columns_are_the_metrics_that_occur_on_its_cards(cards):
    keys = set().union(*cards)
    expected = [column for column in model_columns() if column.key in keys]
    assert zoo.columns() == expected, "run tools/figures.py, which writes zoo/columns.json"
    assert {key for family in FAMILIES for key in family.keys} <= {c.key for c in expected}


def test_models_of_unknown_kind_or_without_metric_values_are_listed():
    lines = zoo_lines([{"model": "a\x1b", "kind": "new"}, {"model": "b", "kind": "cnn"}])
    assert lines[-2:] == ["a\\x1b", "b"]


def test_metric_values_are_printed_one_per_line_with_escaped_names():
    lines = figure_lines({"model": "a\nb", "data": "\x1b", "images": 1000, "accuracy": 0.5})
    assert lines == ["a\\nb on \\x1b (1,000 images)", "  accuracy               50.00%"]
