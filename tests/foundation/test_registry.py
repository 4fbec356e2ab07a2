"""Plugins: packages whose detectors, models, datasets, metrics and explainers are found by name.

Their modules are imported only when a name is first used. tests/plugin is an example package.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from foveal.detectors import DETECTORS, build_detector
from foveal.foundation.errors import UserError
from foveal.foundation.registry import Registry

PLUGIN = Path(__file__).parents[1] / "plugin"
FOCUS_RECIPE = """
name: halves-focus
model: {name: focus, detector: {name: brightest, keypoints: 2}, patch_size: 3, width: 8}
data: {name: halves}
training: {epochs: 2, batch_size: 20}
"""
MEANS_RECIPE = """
name: halves-means
model: {name: means}
data: {name: halves}
training: {epochs: 2, batch_size: 20, lr: 0.1}
"""


def run_python(*command, package=PLUGIN, **options):
    """Run Python as if a package were installed, by default the example package."""
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def run_foveal(*command):
    """Run `foveal` with the example package installed; return what it prints."""
    done = run_python("-m", "foveal", *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train two models of the example package on its dataset; return the folder of their runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, recipe in (("focus", FOCUS_RECIPE), ("means", MEANS_RECIPE)):
        (folder / f"{name}.yaml").write_text(recipe)
        run_foveal("train", folder / f"{name}.yaml", "--out", folder / name)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Write six pictures whose left or right half is brighter; return their folder."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(6):
        image = Image.new("L", (12, 12), 20)
        left = 6 * (index % 2)
        image.paste(200, (left, 0, left + 6, 12))
        image.save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("name", ["focus", "means"])
def test_evaluate_uses_the_detector_model_dataset_and_metric_of_a_plugin(runs, name):
    figures = json.loads(run_foveal("evaluate", runs / name, "--data", "halves", "--json"))
    assert figures["accuracy"] >= 0.5
    assert 0.5 <= figures["confidence"] <= 1
    assert ("content_following" in figures) == (name == "focus")


def test_explain_uses_the_explainer_of_a_plugin(runs, pictures, tmp_path):
    results = json.loads(
        run_foveal(
            "explain", runs / "means", pictures / "0.png", "--method", "contrast",
            "--out", tmp_path, "--json",
        )
    )  # fmt: skip
    assert results["images"][0]["method"] == "contrast"
    assert (tmp_path / "0.png").is_file()


def test_explainer_of_a_plugin_declares_the_meaning_of_its_values():
    code = (
        "import torch; from foveal.explainers import explainer\n"
        "from foveal.models import SmallCNN\n"
        "print(explainer('contrast')(SmallCNN(), torch.rand(1, 1, 8, 8)).values.label)"
    )
    assert run_python("-c", code).stdout.strip() == "distance from the mean"


def test_compare_uses_plugins(runs, tmp_path):
    run_foveal(
        "compare", runs / "focus", runs / "means", "--data", "halves", "--images", "10",
        "--method", "contrast", "--out", tmp_path,
    )  # fmt: skip
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "confidence" in page
    assert "contrast" in page


@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("name", ["focus", "means"])
def test_predict_uses_plugins_in_two_workers(runs, pictures, tmp_path, name, engine):
    import pyarrow.parquet as pq

    if engine == "ray":
        pytest.importorskip("ray")
    out = tmp_path / "rows.parquet"
    workers = ("--workers", "2", "--batch-size", "2", "--engine", engine)
    run_foveal("predict", runs / name, pictures, "--out", out, *workers)
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 6
    assert {row["prediction"] for row in rows} <= {"left", "right"}
    assert not any(row["error"] for row in rows)


@pytest.mark.parametrize("name", ["focus", "means"])
def test_export_accepts_models_of_a_plugin(runs, tmp_path, name):
    run_foveal("export", runs / name, "--out", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 1000


def test_run_cannot_be_loaded_without_its_plugin(runs):
    code = "import sys, foveal; foveal.load(sys.argv[1])"
    done = run_python("-c", code, runs / "focus", package="")
    assert "Unknown detector 'brightest'" in done.stderr


def test_importing_foveal_imports_no_plugin():
    code = (
        "import sys, foveal.models, foveal.metrics, foveal.explainers, foveal.datasets\n"
        "from foveal.detectors import DETECTORS\n"
        "assert 'brightest' in DETECTORS and 'brightest' in list(DETECTORS)\n"
        "assert not [name for name in sys.modules if name.startswith('foveal_example')]\n"
        "DETECTORS['brightest']\n"
        "assert sorted(n for n in sys.modules if n.startswith('foveal_example')) == "
        "['foveal_example', 'foveal_example.brightest']\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["os:system", "antigravity", "foveal_example.brightest:Brightest", "../x", "__import__"]
)
def test_unregistered_name_in_settings_imports_nothing(name):
    with pytest.raises(UserError, match="Unknown detector"):
        build_detector({"name": name, "keypoints": 3})
    assert not {"antigravity", "foveal_example"} & set(sys.modules)


def declare_package(folder, package, detector):
    """Install metadata of a package that declares a detector in a module that does not exist."""
    entry = folder / f"{package}-1.0.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (entry / "entry_points.txt").write_text(f"[foveal.detectors]\n{detector} = nowhere:Nothing\n")


def test_plugin_that_cannot_be_imported_is_a_user_error(tmp_path):
    declare_package(tmp_path, "broken", "broken")
    code = "from foveal.detectors import build_detector; build_detector({'name': 'broken'})"
    done = run_python("-c", code, package=tmp_path)
    assert "UserError: The package broken cannot be imported for 'broken'" in done.stderr


def test_plugin_cannot_override_a_built_in_name(tmp_path):
    declare_package(tmp_path, "impostor", "harris")
    code = "from foveal.detectors import DETECTORS; print(DETECTORS['harris'].__module__)"
    done = run_python("-c", code, package=tmp_path)
    assert done.stdout.strip() == "foveal.detectors.corners"


def test_registry_is_a_mutable_mapping():
    registry = Registry("foveal.nothing", {"one": 1})
    registry["two"] = 2
    assert dict(registry) == {"one": 1, "two": 2}
    assert len(registry) == 2
    assert registry.name_of(2) == "two"
    assert registry.name_of(3) is None
    del registry["two"]
    assert "two" not in registry
    with pytest.raises(KeyError):
        registry["two"]
    assert DETECTORS.get("nothing") is None
