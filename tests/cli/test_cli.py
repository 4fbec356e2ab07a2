"""The command line: output, errors and exit status of each command."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal import zoo
from foveal.models import build_model


def run_process(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run `foveal` in a process of its own, unlike the fixture `run`."""
    command = [sys.executable, "-m", "foveal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return the folder of an untrained model."""
    folder = tmp_path_factory.mktemp("model")
    settings = {
        "name": "focus",
        "detector": {"name": "heatmap", "keypoints": 3},
        "inputs": {"size": [28, 28], "classes": list("0123456789")},
    }
    build_model(settings).eval().save_weights(folder)
    return folder


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "Ziffer drei – größer.png"
    ramp = np.linspace(0, 255, 28 * 28).reshape(28, 28).astype("uint8")
    Image.fromarray(ramp).save(path)
    return path


def test_help_imports_no_heavy_packages():
    code = (
        "import sys\n"
        "try:\n"
        "    from foveal.cli import main; main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'numpy', 'kornia', 'quantus'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_explain_prints_one_json_object_and_draws_a_picture(model, picture, tmp_path, run):
    done = run("explain", model, picture, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["images"][0]
    assert result["path"] == str(picture)
    assert len(result["keypoints"]) == 3
    assert result["prediction"] in "0123456789"
    # Only the most probable classes are listed; 0.0001 allows for rounding.
    assert sum(entry["probability"] for entry in result["probabilities"]) <= 1.0001
    with Image.open(result["picture"]) as output:
        assert min(output.size) > 200


def test_bad_image_is_reported_and_the_others_are_explained(model, picture, tmp_path, run):
    bad = tmp_path / "bad.png"
    bad.write_bytes(picture.read_bytes()[:60])
    done = run("explain", model, bad, picture, "--json")
    results = json.loads(done.stdout)["images"]
    assert done.returncode == 1
    assert "error" in results[0]
    assert "keypoints" in results[1]
    assert str(bad) in done.stderr
    assert "Traceback" not in done.stderr


def test_image_of_another_size_is_resized_with_a_note(model, tmp_path, run):
    large = tmp_path / "large.png"
    Image.new("RGB", (100, 80), "white").save(large)
    done = run("explain", model, large, "--json")
    assert done.returncode == 0
    assert "resized from 80x100 to 28x28" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["evaluate", "mnist-focsu", "--data", "mnist-5k"], 1, "Unknown model"),
        (["evaluate", "MODEL", "--data", "mnits-5k"], 1, "Did you mean 'mnist-5k'"),
        (["evaluate", "MODEL", "--data", "mnist-5k", "--split", "tset"], 1, "test"),
        (["evaluate", "MODEL"], 2, "--data"),
        (["train", "mnist-focsu"], 1, "Did you mean 'mnist-focus'"),
        (["train", "mnist-focus", "epoch=3"], 1, "Did you mean 'epochs'"),
        (["train", "mnist-focus", "--devices", "many"], 1, "--devices"),
        (["train", "mnist-5k-focus", "--out", "FILE/run"], 1, "Cannot write"),
        (["explain", "MODEL", "nowhere.png"], 1, "nowhere.png"),
        (["explain", "MODEL", "PICTURE", "--out", "FILE/out"], 1, "Cannot write"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_user_mistake_gives_at_most_two_lines_and_no_traceback(
    arguments, status, message, model, picture, tmp_path, monkeypatch, run
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("")
    # The upper-case words in the arguments stand for paths.
    paths = {"MODEL": str(model), "PICTURE": str(picture)}
    arguments = [paths.get(argument, argument.replace("FILE", str(file))) for argument in arguments]
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if status == 1:
        assert len(done.stderr.strip().splitlines()) <= 2, done.stderr


def test_evaluate_prints_all_metric_values_of_a_focus_model(model, run):
    done = run("evaluate", model, "--data", "mnist-5k", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    fractions = (
        "accuracy",
        "evidence_fraction",
        "position_leakage",
        "content_following",
        "position_following",
        "random_focus_accuracy",
    )
    assert all(0 <= figures[name] <= 1 for name in fractions)
    assert figures["images"] == 1000
    assert figures["data"] == "mnist-5k"
    assert figures["split"] == "test"
    assert figures["parameters"] > 0
    assert figures["macs"] > 0
    assert figures["latency_ms"] > 0


def test_evaluate_writes_metric_values_to_the_card_and_prints_them(tmp_path, run):
    shutil.copytree(zoo.folder("mnist-cnn"), tmp_path / "copy")
    before = zoo.card(tmp_path / "copy")
    done = run("evaluate", tmp_path / "copy", "--data", "mnist-5k", "--card")
    assert done.returncode == 0, done.stderr
    after = zoo.card(tmp_path / "copy")
    assert after["figures"]["data"] == "mnist-5k"
    assert f"{after['figures']['accuracy']:.2%}" in done.stdout
    assert {**before, "figures": None} == {**after, "figures": None}


def test_models_command_lists_the_zoo(run):
    done = run("models", "--json")
    assert done.returncode == 0, done.stderr
    assert [card["model"] for card in json.loads(done.stdout)] == foveal.zoo.names()


def test_process_reports_errors_on_stderr_and_exits_with_1(model):
    done = run_process("explain", model, "nowhere.png", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["images"][0]["error"]
    assert "nowhere.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_command_lists_the_recipes_that_train_accepts(run):
    assert "mnist-focus" in run("recipes").stdout.split()


def test_explain_accepts_a_post_hoc_method_by_name(model, picture, tmp_path, run):
    done = run("explain", model, picture, "--method", "grad-cam", "--json")
    (result,) = json.loads(done.stdout)["images"]
    assert (done.returncode, result["method"]) == (0, "grad-cam")
    assert result["cost_forward_passes"] > 1
    done = run("explain", model, picture, "--method", "gradcam")
    assert done.returncode == 1
    assert "Did you mean 'grad-cam'" in done.stderr
