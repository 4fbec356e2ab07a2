"""The report on models: one self-contained page without scripts."""

import re

import pytest
import torch

from foveal.backbones import VGGBackbone
from foveal.detectors import Harris
from foveal.evaluation.report import ReportEntry, write_report
from foveal.evaluation.report.page import _evenly_spaced_indices
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
    full_card = {**card, "position_leakage": 0.75, "parameters": 98_817, "latency_ms": 0.59}
    cnn = SmallCNN(inputs=inputs).eval()
    attention = AttentionNet(VGGBackbone(1, [[4], [6]]), depths=[1, 2], inputs=inputs).eval()
    attention_card = {**card, "shuffled_attention_accuracy": 0.5}
    return [
        ReportEntry("first", full_card, focus.explain(images), labels, curve, "trained just now"),
        ReportEntry(EVIL, card, cnn.explain(images), labels),
        ReportEntry("attention", attention_card, attention.explain(images), labels),
        ReportEntry("focus", card, focus.explain(images), labels),
    ]


@pytest.fixture(scope="module")
def page(entries, tmp_path_factory) -> str:
    return write_report(entries, tmp_path_factory.mktemp("report")).read_text(encoding="utf-8")


def test_page_is_self_contained(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_names_are_escaped(page):
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_every_picture_has_an_alt_text(page):
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 5
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


def test_every_metric_is_explained_and_missing_values_are_dashes(entries, page):
    keys = set().union(*(entry.card for entry in entries))
    assert keys < {column.key for column in model_columns()} | {"data", "images"}
    for column in model_columns():
        assert (f">{column.heading}</th>" in page) == (column.key in keys)
        assert (column.meaning.replace("'", "&#39;") in page) == (column.key in keys)
    assert "<td>98.70%</td>" in page
    assert "<td>98,817</td>" in page
    assert "<td>–</td>" in page


def test_patches_or_maps_are_enlarged_for_all_models_but_the_first(page):
    names = re.findall(r'alt="Patches or attention maps of ([^"]+), enlarged"', page)
    assert names == ["attention", "focus"]  # the second model has neither patches nor maps


@pytest.mark.parametrize("with_classifiers", [True, False])
def test_report_shows_reconstructions_with_or_without_classifiers(
    entries, tmp_path, with_classifiers
):
    model = presets.reconstructor(Harris(3), ConvDecoder(1, (4, 8)), patch_size=5).eval()
    explanation = model.explain(torch.rand(6, 1, 28, 28))
    card = {"rebuilding_mse": 0.0123, "rebuilding_ssim": 0.71, "data": "mnist-5k", "images": 6}
    curve = {"epoch": [0.0], "val_mse": [0.0123]}
    entry = ReportEntry("reconstructor", card, explanation, torch.zeros(6, dtype=torch.long), curve)
    classifiers = entries[:2] if with_classifiers else []
    page = write_report([entry, *classifiers], tmp_path).read_text(encoding="utf-8")
    assert "<td>0.0123</td>" in page
    assert ">reconstructor<" in page
    assert ("98.70%" in page) == with_classifiers
    assert all(
        re.search(r'alt="[^"]{20,}"', picture) for picture in re.findall(r"<img [^>]*>", page)
    )


def test_shown_images_cover_all_classes_of_sorted_data():
    labels = torch.arange(100) // 10
    explanation = SmallCNN().eval().explain(torch.rand(100, 1, 28, 28))
    entry = ReportEntry("any", {}, explanation, labels)
    assert labels[_evenly_spaced_indices(entry, 10)].tolist() == list(range(10))
    assert labels[_evenly_spaced_indices(entry, 4)].tolist() == [0, 3, 6, 9]


def test_report_writes_only_the_page(entries, tmp_path):
    path = write_report(entries, tmp_path / "new" / "folder")
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]


def test_unwritable_report_folder_is_an_error(entries, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        write_report(entries, tmp_path / "file" / "report")


def test_report_requires_a_model(tmp_path):
    with pytest.raises(UserError, match="at least 1 model"):
        write_report([], tmp_path)
