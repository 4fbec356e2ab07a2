"""Fixtures for exported models."""

import json

import pytest


@pytest.fixture
def explained(run, tmp_path):
    """Explain a picture with a model's folder, with ONNX Runtime and with its exported file.

    The keypoints must be equal within `atol`, the probabilities within 1e-4.
    """

    def call(folder, file, picture, atol=None):
        outputs = []
        for model in ((folder,), (folder, "--runtime", "onnx"), (file,)):
            status, out, _ = run("explain", *model, picture, "--out", tmp_path / "drawn", "--json")
            assert status == 0
            outputs.append(json.loads(out)["images"][0])
        first = outputs[0]
        for output in outputs[1:]:
            for point, expected in zip(output["keypoints"], first["keypoints"], strict=True):
                assert point == pytest.approx(expected, abs=atol)
            assert output["probabilities"][0]["probability"] == pytest.approx(
                first["probabilities"][0]["probability"], abs=1e-4
            )
        return outputs

    return call
