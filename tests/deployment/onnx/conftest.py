"""Fixtures for exported models."""

import json

import pytest


@pytest.fixture
def explain_with_each_runtime(run, tmp_path):
    """Return a function that explains a picture with each runtime and checks that results agree.

    The runtimes are PyTorch, ONNX Runtime after an export on the fly, and ONNX Runtime with an
    exported file. The keypoints must be equal within `atol`, and the first probabilities within
    1e-4.

    The function returns the three results.
    """

    def explain(folder, file, picture, atol=None):
        outputs = []
        for model in ((folder,), (folder, "--runtime", "onnx"), (file,)):
            status, out, _ = run("explain", *model, picture, "--out", tmp_path / "drawn", "--json")
            assert status == 0
            outputs.append(json.loads(out)["images"][0])
        torch_output, *onnx_outputs = outputs
        for output in onnx_outputs:
            for point, expected in zip(output["keypoints"], torch_output["keypoints"], strict=True):
                assert point == pytest.approx(expected, abs=atol)
            assert output["probabilities"][0]["probability"] == pytest.approx(
                torch_output["probabilities"][0]["probability"], abs=1e-4
            )
        return outputs

    return explain
