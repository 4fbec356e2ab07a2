"""The registry of metrics: a metric that is added appears wherever metrics are measured or shown.

A column describes one value of a metric: its key, heading, format and meaning.
"""

import importlib

import pytest
import torch

from foveal import zoo
from foveal.backbones import VGGBackbone
from foveal.cli.tables import figure_lines
from foveal.datasets import ImageSet
from foveal.detectors import Harris
from foveal.evaluation.compare import compare
from foveal.evaluation.report import ReportEntry, write_report
from foveal.evaluation.report.compare_page import write_comparison
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError
from foveal.heads import ConvDecoder
from foveal.metrics import (
    EXPLANATION_METRICS,
    METRICS,
    ExplanationMetric,
    Metric,
    evaluate,
)
from foveal.metrics.published import COLUMNS as PUBLISHED
from foveal.metrics.published import METRICS as PUBLISHED_METRICS
from foveal.metrics.registry import column_of, explanation_columns, model_columns, useful_for
from foveal.metrics.subject import Given
from foveal.models import AttentionNet, SmallCNN, presets
from foveal.models.abilities import Ability

NOT_FIGURES = {"model", "data", "split", "images", "input_size", "seed"}
LEAKAGE_MODULE = importlib.import_module("foveal.metrics.position_leakage")


@pytest.fixture
def quick_probe(monkeypatch):
    """Train the probe only briefly, for tests that do not depend on its accuracy."""
    monkeypatch.setattr(LEAKAGE_MODULE, "STEPS", 80)


def noise(count=40, split="test", masks=False):
    """Return random images of ten classes, with a mask of one square if `masks` is true."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    truth = torch.zeros_like(images)
    truth[:, :, 5:15, 5:15] = 255
    labels = torch.arange(count) % 10
    classes = tuple("0123456789")
    return ImageSet("noise", split, images, labels, classes, masks=truth if masks else None)


def focus_net():
    return presets.focus(Harris(3), width=16).eval()


def attention_net():
    return AttentionNet(VGGBackbone(1, [[4], [6]]), depths=[1, 2]).eval()


def reconstructor():
    return presets.reconstructor(Harris(3), ConvDecoder(1, (4, 8)), patch_size=5).eval()


@pytest.fixture
def brightness(monkeypatch):
    """Register a metric of models and one of explanations, as the files in foveal/metrics do."""

    def mean_brightness(subject):
        return {"brightness": float(subject.test.images.double().mean()) / 255}

    def peak_heat(batch):
        return {"peak": batch.explanation.heat.amax(dim=(1, 2))}

    grey_column = Column(
        "brightness", "mean grey", "{:.3f}", "mean value of a pixel", "for comparison"
    )
    peak_column = Column("peak", "peak heat", "{:.3f}", "maximum of the heat", "for comparison")
    metric = Metric(
        "brightness", mean_brightness, (grey_column,), needs=frozenset({Ability.CLASSES})
    )
    monkeypatch.setitem(METRICS, "brightness", metric)
    monkeypatch.setitem(
        EXPLANATION_METRICS, "peak", ExplanationMetric("peak", peak_heat, (peak_column,))
    )


def test_added_metric_appears_in_evaluate_terminal_and_report(brightness, tmp_path):
    model, test = SmallCNN().eval(), noise()
    figures = evaluate(model, test, name="mine")
    expected = float(test.images.double().mean()) / 255
    assert figures["brightness"] == pytest.approx(expected)
    # The metric requires classes, which a reconstructor does not have.
    assert "brightness" not in evaluate(reconstructor(), test)
    assert f"  mean grey      {expected:14.3f}" in figure_lines(figures)
    entry = ReportEntry("mine", figures, model.explain(test.images / 255), test.labels)
    page = write_report([entry], tmp_path).read_text(encoding="utf-8")
    assert ">mean grey</th>" in page
    assert f"<td>{expected:.3f}</td>" in page
    assert "<dd>mean value of a pixel" in page


def test_added_metric_appears_in_compare_and_its_page(brightness, tmp_path):
    settings = {"images": 20, "methods": ["grad-cam"]}
    comparison = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings)
    (model,), (row,) = comparison.models, comparison.explanations
    assert 0 < model["brightness"] < 1
    assert row["peak"] > 0
    page = write_comparison(comparison, tmp_path).read_text(encoding="utf-8")
    for text in (">mean grey</th>", ">peak heat</th>", f"<td>{row['peak']:.3f}</td>"):
        assert text in page


def test_stored_figures_are_measured_again_after_a_metric_is_added(tmp_path, request):
    settings = {"images": 20, "methods": ["grad-cam"]}
    before = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings)
    assert "brightness" not in before.models[0]
    request.getfixturevalue("brightness")
    assert "brightness" in compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings).models[0]


def test_every_metric_has_unique_columns_with_meaning_and_direction():
    metrics = [*METRICS.items(), *EXPLANATION_METRICS.items()]
    assert all(name == metric.name and metric.columns for name, metric in metrics)
    columns = [column for _, metric in metrics for column in metric.columns]
    columns += [*PUBLISHED, *filter(None, (metric.column for metric in PUBLISHED_METRICS.values()))]
    by_key = {column.key: column for column in columns}
    by_heading = {column.heading: column for column in columns}
    assert all(by_key[column.key] is column for column in columns)
    assert all(by_heading[column.heading] is column for column in columns)
    for column in columns:
        assert column.meaning.strip() == column.meaning != ""
        assert "\n" not in column.meaning
        assert column.direction
        assert column.form.format(1) != ""


def test_tables_list_each_column_once_with_predictions_first_and_cost_last():
    for columns in (model_columns(), explanation_columns()):
        assert len({column.key for column in columns}) == len(columns)
        assert all(column.listed for column in columns)
    assert model_columns()[0].key == "accuracy"
    assert [column.key for column in model_columns()][-3:] == ["parameters", "macs", "latency_ms"]
    assert explanation_columns()[-1].key == "ms_per_image"
    with pytest.raises(KeyError):
        column_of("fame")


@pytest.mark.parametrize("build", [focus_net, attention_net, SmallCNN, reconstructor])
def test_every_figure_of_evaluate_has_a_column(build, quick_probe):
    model = build().eval()
    train, test = noise(split="train"), noise(masks=True)
    figures = evaluate(model, test, train, judge=SmallCNN().eval())
    assert set(figures) > NOT_FIGURES
    declared = [c.key for metric in METRICS.values() for c in metric.columns]
    assert set(figures) - NOT_FIGURES <= set(declared)
    assert all(figures[column_of(key).key] is not None for key in set(figures) - NOT_FIGURES)


def test_every_figure_on_a_card_of_the_zoo_has_a_column():
    large = {"megapixel-mnist-focus"}  # one accuracy per task in addition to their mean
    for name in set(zoo.names()) - large:
        for key in set(zoo.card(name).get("figures", {})) - NOT_FIGURES:
            assert column_of(key).key == key


def test_every_figure_of_compare_has_a_column(tmp_path):
    comparison = compare(["mnist-focus", "mnist-attention"], "mnist-5k", tmp_path, images=20)
    for row in (*comparison.models, *comparison.explanations):
        assert all(column_of(key) for key in set(row) - NOT_FIGURES - {"method"})


def test_judge_metrics_depend_on_patches_or_maps():
    with_judge = {"judge": SmallCNN().eval()}
    patches, maps = (
        evaluate(build(), noise(), **with_judge) for build in (focus_net, attention_net)
    )
    assert "sufficiency" in patches
    assert "sufficiency" not in maps
    assert {f"necessity_at_{percent}%" for percent in (5, 10, 20, 50)} <= set(maps)
    assert not any(
        "sufficiency" in key for key in evaluate(SmallCNN().eval(), noise(), **with_judge)
    )


def test_probes_are_trained_only_for_models_with_keypoints():
    needs_train = {
        build: Given.TRAIN in useful_for(build())
        for build in (focus_net, attention_net, reconstructor)
    }
    assert needs_train == {focus_net: True, attention_net: False, reconstructor: True}
    assert useful_for(SmallCNN()) == {Given.MASKS}


def test_exported_reconstructor_has_the_figures_of_the_model(quick_probe):
    from foveal.deployment import onnx

    model = reconstructor()
    graph, further_graphs = onnx.exported(model, (28, 28))
    exported_model = onnx.as_onnx(graph, beside=further_graphs)
    train, test = noise(split="train"), noise()
    expected, figures = (evaluate(network, test, train) for network in (model, exported_model))
    for key in ("rebuilding_mse", "rebuilding_ssim", "position_leakage", "evidence_fraction"):
        assert figures[key] == pytest.approx(expected[key], abs=1e-5)


def test_evaluate_rejects_objects_that_are_not_models():
    with pytest.raises(UserError, match="Expected a Foveal model"):
        evaluate(torch.nn.Identity(), noise())
