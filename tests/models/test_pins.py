"""Pins: stored outputs of five small zoo models for fixed inputs, which must not change."""

import copy
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests" / "pins.json"
PINNED = json.loads(PINS.read_text(encoding="utf-8"))
TOLERANCE = 1e-4  # processors other than the one that wrote the pins round differently


def test_five_models_match_their_pins():
    command = [sys.executable, "tools/pin.py", PINS, *PINNED, "--check", "--tolerance", TOLERANCE]
    process = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert process.returncode == 0, process.stderr
    assert "5 models are as pinned" in process.stdout


@pytest.mark.parametrize(
    ("runtime", "tensor", "change", "reason"),
    [
        ("torch", "logits", lambda values: [value + 0.001 for value in values], "differs by 1.0e"),
        ("torch-wide", "keypoints", lambda values: [*values[:-1], 0.5], "differs by"),
        ("onnx", "logits", lambda values: [-value for value in values], "differs by"),
        ("onnx", "logits", lambda values: values[1:], "differs in shape"),
    ],
)
def test_a_different_output_is_reported(runtime, tensor, change, reason):
    differences = runpy.run_path(str(ROOT / "tools" / "pin.py"))["differences"]
    before, after = PINNED["mnist-focus"], copy.deepcopy(PINNED["mnist-focus"])
    assert differences("mnist-focus", before, after, {"torch": TOLERANCE, "onnx": TOLERANCE}) == []
    pin = after[runtime][tensor]
    values = change(pin["values"])
    after[runtime][tensor] = {"values": values, "sha256": "another", "shape": [len(values)]}
    if len(values) == len(pin["values"]):
        after[runtime][tensor]["shape"] = pin["shape"]
    (line,) = differences("mnist-focus", before, after, {"torch": TOLERANCE, "onnx": TOLERANCE})
    assert line.startswith(f"mnist-focus {runtime} {tensor}: {reason}")
