"""`foveal compare`: models and explanations side by side, and a self-contained report.

`OWN` is the method by which a model explains itself; post-hoc methods such as Grad-CAM explain any
model. A judge is a classifier that was trained independently: its accuracy on the evidence alone
measures how much information the evidence contains.
"""

import csv
import json
import math
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

    def record(step, completed, total):
        steps.append((step, completed, total))

    result = compare(
        MODELS,
        "mnist-5k",
        out,
        images=40,
        judge="mnist-cnn",
        methods=METHODS,
        progress=record,
    )
    assert [completed for _, completed, _ in steps] == list(range(len(steps)))
    # The last step of the record reports that all steps are completed.
    assert {total for _, _, total in steps} == {len(steps) - 1}
    return result


@pytest.fixture(scope="module")
def page(results, out):
    return write_comparison(results, out).read_text(encoding="utf-8")


def test_post_hoc_methods_explain_models_that_do_not_read_patches(results):
    pairs = [(row["model"], row["method"]) for row in results.explanations]
    assert pairs == [
        ("mnist-focus", OWN),
        ("mnist-attention", OWN),
        ("mnist-attention", "contributions"),
        ("mnist-attention", "grad-cam"),
        ("mnist-cnn", "grad-cam"),
        ("mnist-cnn", "gradient-x-input"),
    ]


def test_models_and_explanations_have_the_metrics_that_apply_to_them(results):
    focus, _, cnn = results.models
    assert focus["images"] == 40
    assert focus["accuracy"] > 0.9
    assert cnn["accuracy"] > 0.9
    assert "position_leakage" in focus
    # PGD is the stronger attack; 0.05 allows for chance.
    assert focus["pgd_accuracy"] <= focus["fgsm_accuracy"] + 0.05
    assert focus["fgsm_accuracy"] <= focus["accuracy"]
    assert "position_leakage" not in cnn
    rows = {(row["model"], row["method"]): row for row in results.explanations}
    patches = rows.pop(("mnist-focus", OWN))
    maps = rows.pop(("mnist-attention", OWN))
    contributions = rows.pop(("mnist-attention", "contributions"))
    for own_explanation in (patches, maps, contributions):
        assert own_explanation["cost_forward_passes"] == 1.0
    assert patches["evidence_fraction"] == pytest.approx(focus["evidence_fraction"], abs=1e-6)
    assert patches["sufficiency"] == pytest.approx(focus["sufficiency"], abs=1e-6)
    assert {f"sufficiency_at_{percent}%" for percent in (5, 10, 20, 50)} <= set(maps)
    assert "keypoint_shift_px" in patches
    for row in rows.values():  # of the post-hoc methods
        assert row["cost_forward_passes"] > 1.5
        assert 0 <= row["deletion"] <= 1
        assert 0 <= row["insertion"] <= 1


def measure_again(*arguments):
    raise AssertionError("measured again")


def test_interrupted_comparison_resumes(results, out, monkeypatch):
    monkeypatch.setattr(comparison, "model_figures", measure_again)
    monkeypatch.setattr(comparison, "explanation_figures", measure_again)
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
    key = ("mnist-focus", "0123abcd", "figures")  # model, digest of its weights, measurement
    ledger.get(*key, lambda: {"accuracy": 0.5})
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:-9])  # truncated
    assert ledger.get(*key, lambda: {"accuracy": 0.7}) == {"accuracy": 0.7}
    # The stored figures are returned, and `measure_again` is not called.
    assert ledger.get(*key, measure_again) == {"accuracy": 0.7}


def test_page_is_self_contained_and_explains_its_metrics(page):
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


def test_csv_has_every_value_of_every_row():
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
    arguments = ["compare", "mnist-focus", "--data", "mnist-5k", "--images", "20"]
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments, "--out", str(tmp_path)])
    assert exit_info.value.code == 0
    output = capsys.readouterr()
    assert output.out.strip() == str(tmp_path / "index.html")
    assert (tmp_path / "index.html").is_file()


def test_model_changed_in_place_is_measured_again(tmp_path):
    model = zoo.load("mnist-focus")
    (tmp_path / "run").mkdir()
    model.save_weights(tmp_path / "run")
    before = compare([str(tmp_path / "run")], "mnist-5k", tmp_path / "out", images=20)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
    model.save_weights(tmp_path / "run")
    after = compare([str(tmp_path / "run")], "mnist-5k", tmp_path / "out", images=20)
    assert before.models[0]["accuracy"] > 0.9
    assert after.models[0]["accuracy"] < 0.3


def test_published_metrics_use_the_requested_number_of_images(tmp_path):
    """Published metrics are those that the library Quantus computes."""
    settings = {"images": 20, "methods": ["grad-cam"]}
    plain = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings)
    image_count = 6
    extended = compare(["mnist-cnn"], "mnist-5k", tmp_path, **settings, published=image_count)
    (row,) = extended.explanations
    (plain_row,) = plain.explanations
    assert row["published_images"] == row["published_road_images"] == image_count
    for name in ("pixel_flipping", "road", "mprt", "efficient_mprt"):
        assert not math.isnan(row[f"published_{name}"])
    assert 0 <= row["published_pixel_flipping"] <= 1
    assert "published_relevance_mass_accuracy" not in row  # without masks
    assert {name: row[name] for name in plain_row} == plain_row
    focus_row = compare(["mnist-focus"], "mnist-5k", tmp_path, images=20).explanations[0]
    # The evidence fraction needs no judge. Three patches of 5 x 5 pixels cover at most 0.096 of the
    # image, a little less where they overlap.
    assert focus_row["evidence_fraction"] == pytest.approx(0.09, abs=0.01)
    assert "ROAD" in write_comparison(extended, tmp_path).read_text(encoding="utf-8")
