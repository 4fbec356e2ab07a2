"""`foveal compare`: models and explanations side by side, and a self-contained report."""

import csv
import json
import re

import pytest
import torch

from foveal import zoo
from foveal.cli import main
from foveal.evaluation import compare as comparison
from foveal.evaluation.compare import compare
from foveal.evaluation.ledger import Ledger
from foveal.evaluation.report.compare_page import write_comparison
from foveal.evaluation.report.tables import csv_table, latex_table, markdown_table
from foveal.explainers import OWN
from foveal.foundation.columns import Column
from foveal.foundation.errors import UserError

MODELS = ["mnist-focus", "mnist-attention", "mnist-cnn"]
METHODS = ["grad-cam", "gradient-x-input"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def results(out):
    steps = []
    result = compare(
        MODELS,
        "mnist-5k",
        out,
        images=40,
        judge="mnist-cnn",
        methods=METHODS,
        progress=lambda *step: steps.append(step),
    )
    assert [done for _, done, _ in steps] == list(range(len(steps)))
    assert {total for *_, total in steps} == {len(steps) - 1}
    return result


@pytest.fixture(scope="module")
def page(results, out):
    return write_comparison(results, out).read_text(encoding="utf-8")


def test_models_explain_themselves_or_else_post_hoc_methods_do(results):
    pairs = [(row["model"], row["method"]) for row in results.explanations]
    assert pairs == [
        ("mnist-focus", OWN),
        ("mnist-attention", OWN),
        ("mnist-attention", "contributions"),
        ("mnist-attention", "grad-cam"),
        ("mnist-cnn", "grad-cam"),
        ("mnist-cnn", "gradient-x-input"),
    ]


def test_models_and_explanations_have_their_figures(results):
    focus, _, cnn = results.models
    assert focus["images"] == 40
    assert focus["accuracy"] > 0.9 < cnn["accuracy"]
    assert "position_leakage" in focus
    assert focus["pgd_accuracy"] <= focus["fgsm_accuracy"] + 0.05 <= focus["accuracy"] + 0.05
    assert "position_leakage" not in cnn
    patches, maps, terms, *post_hoc = results.explanations
    assert patches["cost_forward_passes"] == 1.0 == maps["cost_forward_passes"]
    assert terms["cost_forward_passes"] == 1.0
    assert patches["evidence_fraction"] == pytest.approx(focus["evidence_fraction"], abs=1e-6)
    assert patches["sufficiency"] == pytest.approx(focus["sufficiency"], abs=1e-6)
    assert {f"sufficiency_at_{percent}%" for percent in (5, 10, 20, 50)} <= set(maps)
    assert "keypoint_shift_px" in patches
    for row in post_hoc:
        assert row["cost_forward_passes"] > 1.5
        assert 0 <= row["deletion"] <= 1 >= row["insertion"] >= 0


def test_interrupted_comparison_resumes(results, out, monkeypatch):
    def never(*arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(comparison, "model_figures", never)
    monkeypatch.setattr(comparison, "explanation_figures", never)
    settings = {"images": 40, "judge": "mnist-cnn", "methods": METHODS}
    resumed = compare(MODELS[:2], "mnist-5k", out, **settings)
    assert resumed.models == results.models[:2]
    assert resumed.explanations == results.explanations[:4]
    with pytest.raises(AssertionError, match="again"):
        compare(MODELS[:1], "mnist-5k", out, **settings, seed=1)
    with pytest.raises(AssertionError, match="again"):
        compare(MODELS[:1], "mnist-5k", out, **{**settings, "judge": None})


def test_corrupt_ledger_entry_is_measured_again(tmp_path):
    ledger = Ledger(tmp_path, {"data": "mine"})
    key = ("mnist-focus", "0123abcd")
    ledger.get(*key, "figures", lambda: {"accuracy": 0.5})
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-9])
    assert ledger.get(*key, "figures", lambda: {"accuracy": 0.7}) == {"accuracy": 0.7}
    assert ledger.get(*key, "figures", dict) == {"accuracy": 0.7}


def test_page_is_self_contained_and_explains_its_figures(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert page.count("<dt>deletion</dt>") == 1
    pictures = re.findall(r"<img [^>]*>", page)
    assert len(pictures) >= 8
    assert all(re.search(r'alt="[^"]{20,}"', picture) for picture in pictures)


def test_tables_and_plots_are_written_next_to_the_page(page, results, out):
    results_json = json.loads((out / "results.json").read_text())
    assert results_json["models"] == [dict(row) for row in results.models]
    with (out / "explanations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == [row["method"] for row in results.explanations]
    assert float(rows[0]["deletion"]) == results.explanations[0]["deletion"]
    assert r"\toprule" in (out / "models.tex").read_text()
    for name in ("accuracy-evidence", "accuracy-macs", "judged-evidence", "learning"):
        assert (out / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / "plots" / f"{name}.svg").read_text()


def test_latex_is_escaped_and_missing_values_are_dashes():
    columns = [Column("share", "hits", "{:.0%}", "…", "higher")]
    table = latex_table(["name"], columns, [{"name": "a_b & 5%", "share": 0.5}, {"name": "c"}])
    assert r"a\_b \& 5\% & 50\% \\" in table
    assert r"c & -- \\" in table
    assert markdown_table(["name"], columns, [{"name": "a", "share": 0.5}, {"name": "c"}]) == (
        "| name | hits |\n| --- | ---: |\n| `a` | 50% |\n| `c` | – |\n"
    )


def test_csv_has_every_figure_of_every_row():
    assert csv_table([{"a": 1, "b": "x,y"}, {"a": 2, "c": 0.1}]) == 'a,b,c\n1,"x,y",\n2,,0.1\n'


@pytest.mark.parametrize(
    ("models", "settings", "reason"),
    [
        (["mnist-cnn", "cifar10-cnn"], {}, "models with the same input size"),
        (["mnist-cnn", "mnist-cnn"], {}, "listed twice"),
        (["mnist-cnnn"], {}, "Did you mean 'mnist-cnn'"),
        (["mnist-cnn"], {"methods": ["gradcam"]}, "Did you mean 'grad-cam'"),
        (["mnist-cnn"], {"judge": "nobody"}, "Unknown model 'nobody'"),
        ([], {}, "at least 1 model"),
    ],
)
def test_invalid_comparison_gives_a_one_line_error(tmp_path, models, settings, reason):
    with pytest.raises(UserError, match=reason) as error:
        compare(models, "mnist-5k", tmp_path, images=10, **settings)
    assert "\n" not in str(error.value)


def test_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        compare(["mnist-cnn"], "mnist-5k", tmp_path / "file" / "out", images=10)


def test_command_prints_the_path_of_the_page(tmp_path, capsys):
    main_arguments = ["compare", "mnist-focus", "--data", "mnist-5k", "--images", "20"]
    with pytest.raises(SystemExit) as end:
        main([*main_arguments, "--out", str(tmp_path)])
    assert end.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "index.html")
    assert (tmp_path / "index.html").is_file()


def test_model_changed_in_place_is_measured_again(tmp_path):
    model = zoo.load("mnist-focus")
    (tmp_path / "run").mkdir()
    model.save_weights(tmp_path / "run")
    first = compare([str(tmp_path / "run")], "mnist-5k", tmp_path / "out", images=20)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    model.save_weights(tmp_path / "run")
    second = compare([str(tmp_path / "run")], "mnist-5k", tmp_path / "out", images=20)
    assert first.models[0]["accuracy"] > 0.9
    assert second.models[0]["accuracy"] < 0.3


def test_published_metrics_use_the_requested_number_of_images(tmp_path):
    settings = {"images": 20, "methods": ["grad-cam"]}
    plain = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings)
    extended = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings, published=6)
    (row,), (before,) = extended.explanations, plain.explanations
    assert row["published_images"] == row["published_road_images"] == 6
    for name in ("pixel_flipping", "road", "mprt", "efficient_mprt"):
        assert row[f"published_{name}"] == row[f"published_{name}"]  # not NaN
    assert 0 <= row["published_pixel_flipping"] <= 1
    assert "published_relevance_mass_accuracy" not in row  # without masks
    assert {name: row[name] for name in before} == before
    assert compare(["mnist-focus"], "mnist-5k", tmp_path, images=20).explanations[0][
        "evidence_fraction"
    ] == pytest.approx(0.09, abs=0.01)  # measured even without a judge
    assert "ROAD" in write_comparison(extended, tmp_path).read_text(encoding="utf-8")
