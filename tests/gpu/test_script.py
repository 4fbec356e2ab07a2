"""`tools/gpu.sh`, tested on the CPU.

The script trains a model, packs the run folder into one file, and can resume from that file.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

SCRIPT = Path(__file__).parents[2] / "tools" / "gpu.sh"
RECIPE = {
    "name": "tiny",
    "model": {"name": "cnn", "widths": [4, 8]},
    "data": {"name": "mnist-5k", "limit": 100},
    "training": {"epochs": 2, "batch_size": 50},
}


def run(*arguments):
    """Run the script; return the finished process."""
    command = [SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "2"], "Unknown option --devices"),
        (["--device", "tpu"], "Expected --device cuda or cpu, but got tpu"),
        (["--minutes", "many"], "Expected --minutes as 1, 2, …, but got many"),
        (["--out"], "Expected a value after --out"),
    ],
)
def test_invalid_arguments_are_an_error_and_nothing_is_run(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_run_is_packed_into_one_file_and_resumed_from_it(tmp_path):
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(RECIPE))
    options = ("--device", "cpu", "--minutes", "5", "--train-only", "--out", out)
    done = run(*options, recipe)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = (out / "tiny" / "model.safetensors").read_bytes()
    shutil.rmtree(out / "tiny")
    resumed = run(*options, "--resume", recipe)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert (out / "tiny" / "model.safetensors").read_bytes() == weights
    assert "holds a run already" in run(*options, recipe).stderr
