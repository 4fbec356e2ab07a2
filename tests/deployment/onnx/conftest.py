"""What tests of exported models need."""

import json

import pytest


@pytest.fixture
def explained(run, tmp_path):
    """Explain a picture by a model's folder, by its ONNX runtime and by its exported file.

    The keypoints must be equal within `atol`, the probabilities within 1e-4.
    """

    def call(folder, file, picture, atol=None):
        answers = []
        for model in ((folder,), (folder, "--runtime", "onnx"), (file,)):
            status, out, _ = run("explain", *model, picture, "--out", tmp_path / "drawn", "--json")
            assert status == 0
            answers.append(json.loads(out)["images"][0])
        first = answers[0]
        for answer in answers[1:]:
            for found, expected in zip(answer["keypoints"], first["keypoints"], strict=True):
                assert found == pytest.approx(expected, abs=atol)
            assert answer["probabilities"][0]["probability"] == pytest.approx(
                first["probabilities"][0]["probability"], abs=1e-4
            )
        return answers

    return call
