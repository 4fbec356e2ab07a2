"""Batch prediction with ONNX Runtime: equality with the rows of PyTorch, and refused options."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal.cli import main
from foveal.deployment.batch import predict
from foveal.deployment.onnx import exported, write_onnx
from foveal.foundation.errors import UserError
from foveal.models import Inputs, SmallCNN, presets


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with nine pictures of two sizes and one that is smaller than a patch."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for number in range(9):
        side = 90 + 10 * (number % 2)
        pixels = torch.randint(256, (side, 90), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    Image.new("L", (90, 12), 200).save(folder / "9.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder with a high-resolution model and its ONNX export."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    widths = {"detector_widths": (4, 6, 6), "encoder_widths": (4, 8, 8), "width": 16}
    network = presets.high_res(shrink=4, keypoints=4, patch_size=20, heads=2, **widths).eval()
    network.save_weights(folder)
    graph, parts = exported(network)
    write_onnx(graph, folder / "model.onnx", parts)
    return folder


def rows(out):
    return pq.read_table(out).to_pylist()


def test_onnx_rows_equal_pytorch_rows_including_errors(model, pictures, tmp_path, capsys):
    file = str(model / "model.onnx")
    for name, out in ((str(model), "torch.parquet"), (file, "onnx.parquet")):
        with pytest.raises(SystemExit, match="0"):
            main(["predict", name, str(pictures), "--out", str(tmp_path / out), "--quiet"])
    assert "1 could not be read: see column `error`" in capsys.readouterr().err
    onnx_rows, torch_rows = rows(tmp_path / "onnx.parquet"), rows(tmp_path / "torch.parquet")
    assert len(onnx_rows) == len(torch_rows) == 10
    for row, torch_row in zip(onnx_rows[:9], torch_rows[:9], strict=True):
        assert row["error"] is None
        assert (row["path"], row["prediction"]) == (torch_row["path"], torch_row["prediction"])
        assert row["probabilities"] == pytest.approx(torch_row["probabilities"], abs=1e-4)
        assert len(row["keypoints"]) == 4
        for point, torch_point in zip(row["keypoints"], torch_row["keypoints"], strict=True):
            assert point == pytest.approx(torch_point, abs=1e-4)
    for row in (onnx_rows[9], torch_rows[9]):
        assert "at least 20x20 pixels" in row["error"]
        assert row["prediction"] is row["keypoints"] is row["resized"] is None


def test_a_run_is_resumed_with_the_runtime_that_started_it(pictures, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    SmallCNN(widths=(4,), inputs=Inputs(size=(28, 28))).eval().save_weights(folder)
    predict(folder, pictures, out, runtime="onnx", shard_size=4)
    manifest = json.loads((out / "_manifest.json").read_text())
    assert manifest["runtime"] == "onnx"
    with pytest.raises(UserError, match="was started with runtime='onnx', but got 'torch'"):
        predict(folder, pictures, out, shard_size=4, resume=True)
    assert predict(folder, pictures, out, runtime="onnx", shard_size=4, resume=True).new == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "ray"}, "use --engine local for ONNX Runtime"),
        ({"device": "cuda"}, "use --runtime torch for --device cuda"),
        ({"runtime": "onyx"}, "Did you mean 'onnx'"),
    ],
)
def test_options_that_onnx_runtime_lacks_are_refused_before_writing(
    options, message, model, pictures, tmp_path
):
    name = model / "model.onnx"
    with pytest.raises(UserError, match=message):
        predict(name, pictures, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
