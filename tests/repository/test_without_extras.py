"""The package without its extras: supported commands, and errors that name the missing extra."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from foveal.training import callbacks

# Packages that only extras install. torchvision is not listed: Lightning imports it whenever its
# metadata is installed, so hiding it would break Lightning. `make bare` covers that case.
EXTRA_PACKAGES = (
    "captum",
    "fastapi",
    "jinja2",
    "kornia",
    "mlxtend",
    "onnx",
    "onnxruntime",
    "optuna",
    "pyarrow",
    "timm",
)

_HIDE_PACKAGES = """
import sys
for name in {packages!r}:
    sys.modules[name] = None  # an import of it fails
"""

_COMMAND = "\nfrom foveal.cli import main\nmain(sys.argv[1:])"

_PYTHON_API = """
import torch
import foveal
from foveal.datasets import ImageSet

model = foveal.load("mnist-focus")
images = torch.rand(6, 1, 28, 28)
explanation = model.explain(images)
assert torch.equal(model(images), explanation.logits)
explanation.save("pictures")
data = ImageSet("random", "test", (255 * images).byte(), torch.arange(6), tuple("0123456789"))
assert 0 <= foveal.evaluate(model, data)["accuracy"] <= 1
"""


@pytest.fixture
def run_bare(tmp_path):
    """Return a function that runs code in a process that cannot import the packages of extras."""

    def run(code, *arguments, packages=EXTRA_PACKAGES):
        command = [
            sys.executable,
            "-c",
            _HIDE_PACKAGES.format(packages=packages) + code,
            *arguments,
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def noise_folder(tmp_path):
    """A folder of noise images in two classes, split into train, val and test."""
    random = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in "ab":
            folder = tmp_path / "noise_folder" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(256, size=(28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "noise_folder"


def test_a_bare_installation_loads_explains_and_evaluates(run_bare):
    process = run_bare(_PYTHON_API)
    assert process.returncode == 0, process.stderr


def test_a_bare_installation_trains_and_explains_from_the_command_line(
    run_bare, noise_folder, tmp_path
):
    arguments = ("mnist-cnn", "--data", str(noise_folder), "--out", "run", "--quiet")
    training = run_bare(_COMMAND, "train", *arguments, "epochs=1", "batch_size=2")
    assert training.returncode == 0, training.stderr
    explaining = run_bare(
        _COMMAND, "explain", "mnist-focus", str(noise_folder / "test/a/0.png"), "--out", "out"
    )
    assert explaining.returncode == 0, explaining.stderr
    assert (tmp_path / "out" / "0.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("explain", "mnist-corners", "{image}"), "corners"),
        (("explain", "mnist-cnn", "{image}", "--method", "occlusion"), "captum"),
        (("evaluate", "mnist-focus", "--data", "mnist-5k"), "demo"),
        (("predict", "mnist-focus", "{image}", "--out", "out.parquet"), "predict"),
        (("serve", "mnist-focus"), "app"),
        (("export", "mnist-focus", "--out", "focus.onnx"), "onnx"),
        (("sweep", "mnist-cnn", "lr=0.1,0.2", "--out", "sweep"), "sweep"),
    ],
)
def test_a_missing_package_is_a_one_line_error_with_its_extra(
    run_bare, noise_folder, arguments, extra
):
    image = str(noise_folder / "test/a/0.png")
    process = run_bare(_COMMAND, *(argument.format(image=image) for argument in arguments))
    assert process.returncode == 1
    assert f"pip install 'foveal[{extra}]'" in process.stderr
    assert "Traceback" not in process.stderr


def test_vgg16_without_torchvision_gives_an_error_that_names_the_extra(run_bare):
    code = "\nfrom foveal.models import build_model\nbuild_model({'name': 'vgg16'})"
    process = run_bare(code, packages=("torchvision",))
    assert process.stderr.strip().endswith("pip install 'foveal[vision]'.")


def test_a_run_has_no_logger_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "find_spec", lambda name: None)
    assert callbacks.loggers(tmp_path) == []
