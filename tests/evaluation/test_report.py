"""The report is one file that says everything and runs nothing."""

import re

import pytest
import torch

from foveal.backbones import VGGBackbone
from foveal.detectors import Harris
from foveal.evaluation.report import ReportEntry, write_report
from foveal.evaluation.report.page import _spread
from foveal.foundation.errors import UserError
from foveal.heads import ConvDecoder
from foveal.metrics.registry import model_columns
from foveal.models import AttentionNet, Inputs, SmallCNN, presets

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def entries() -> list[ReportEntry]:
    torch.manual_seed(0)
    images, labels = torch.rand(12, 1, 28, 28), torch.arange(12) % 10
    inputs = Inputs(classes=(EVIL, *map(str, range(1, 10))))
    focus = presets.focus(Harris(3), width=16, inputs=inputs).eval()
    curve = {"epoch": [0.0, 1.0], "val_accuracy": [0.5, 0.6], "val_loss": [2.0, 1.0]}
    card = {"accuracy": 0.987, "evidence_fraction": 0.0957, "data": "mnist-5k", "images": 1000}
    full = {**card, "position_leakage": 0.75, "parameters": 98_817, "latency_ms": 0.59}
    cnn = SmallCNN(inputs=inputs).eval()
    attention = AttentionNet(VGGBackbone(1, [[4], [6]]), depths=[1, 2], inputs=inputs).eval()
    weighed = {**card, "shuffled_attention_accuracy": 0.5}
    return [
        ReportEntry("mine", full, focus.explain(images), labels, curve, "trained just now"),
        ReportEntry(EVIL, card, cnn.explain(images), labels),
        ReportEntry("weighs", weighed, attention.explain(images), labels),
        ReportEntry("cuts", card, focus.explain(images), labels),
    ]


@pytest.fixture(scope="module")
def page(entries, tmp_path_factory) -> str:
    return write_report(entries, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_names_are_escaped(page):
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_every_picture_has_a_text_for_those_who_cannot_see_it(page):
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 5
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


def test_every_figure_that_a_model_has_is_explained_and_where_it_is_missing_is_a_dash(
    entries, page
):
    known = set().union(*(entry.card for entry in entries))
    assert known < {column.key for column in model_columns()} | {"data", "images"}
    for column in model_columns():
        assert (f">{column.heading}</th>" in page) == (column.key in known)
        assert (column.meaning.replace("'", "&#39;") in page) == (column.key in known)
    assert "<td>98.70%</td>" in page
    assert "<td>98,817</td>" in page
    assert "<td>–</td>" in page


def test_each_model_but_the_first_is_shown_closely_if_it_shows_what_it_saw(page):
    closer = re.findall(r'alt="Patches or attention maps of ([^"]+), enlarged"', page)
    assert closer == ["weighs", "cuts"]


@pytest.mark.parametrize("beside", [True, False])
def test_what_a_reconstructor_rebuilt_is_shown_beside_classifiers_or_alone(
    entries, tmp_path, beside
):
    model = presets.reconstructor(Harris(3), ConvDecoder(1, (4, 8)), patch_size=5).eval()
    explanation = model.explain(torch.rand(6, 1, 28, 28))
    card = {"rebuilding_mse": 0.0123, "rebuilding_ssim": 0.71, "data": "mnist-5k", "images": 6}
    curve = {"epoch": [0.0], "val_mse": [0.0123]}
    entry = ReportEntry("rebuilds", card, explanation, torch.zeros(6, dtype=torch.long), curve)
    others = entries[:2] if beside else []
    page = write_report([entry, *others], tmp_path).read_text(encoding="utf-8")
    assert "<td>0.0123</td>" in page
    assert ">rebuilds<" in page
    assert ("98.70%" in page) == beside
    assert all(re.search(r'alt="[^"]{20,}"', found) for found in re.findall(r"<img [^>]*>", page))


def test_the_images_that_are_shown_are_of_all_classes_though_these_are_in_order():
    labels = torch.arange(100) // 10
    explanation = SmallCNN().eval().explain(torch.rand(100, 1, 28, 28))
    entry = ReportEntry("any", {}, explanation, labels)
    assert labels[_spread(entry, 10)].tolist() == list(range(10))
    assert labels[_spread(entry, 4)].tolist() == [0, 3, 6, 9]


def test_nothing_but_the_page_is_left(entries, tmp_path):
    path = write_report(entries, tmp_path / "new" / "folder")
    assert [found.name for found in path.parent.iterdir()] == ["index.html"]


def test_a_folder_that_cannot_be_made_is_said(entries, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        write_report(entries, tmp_path / "file" / "report")


def test_no_models_are_no_report(tmp_path):
    with pytest.raises(UserError, match="at least 1 model"):
        write_report([], tmp_path)
