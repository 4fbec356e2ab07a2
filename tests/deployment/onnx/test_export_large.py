"""ONNX export of high-resolution models to several files.

The main file scores locations on a thumbnail (the image made `shrink` times smaller), another
scores locations within regions, and a third classifies patches.
"""

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import torch
from PIL import Image

from foveal.datasets import load_large
from foveal.deployment.onnx import (
    about,
    exported,
    large_graphs,
    large_int8,
    load,
    load_onnx,
    write_onnx,
)
from foveal.deployment.onnx.large_int8 import as_int8_large
from foveal.detectors import Located
from foveal.foundation.errors import UserError
from foveal.images.pyramids import LargeFiles
from foveal.metrics import evaluate
from foveal.models import Inputs
from foveal.models.presets import high_res

TOLERANCE = 1e-4  # for logits; the runtimes round in a different order


def make_model(**settings):
    """Return a small untrained high-resolution model; keyword arguments replace its settings."""
    torch.manual_seed(0)
    model = high_res(
        **{
            "shrink": 4,
            "keypoints": 5,
            "patch_size": 24,
            "in_channels": 3,
            "num_classes": 2,
            "width": 16,
            "heads": 2,
            "detector_widths": (4, 6, 6),
            "encoder_widths": (4, 6, 8, 8),
            "regions": 4,
            "thumbnail_side": 24,
            "tasks": ("class", "other"),
            "inputs": Inputs(mean=(0.2, 0.3, 0.4), std=(0.5, 0.4, 0.3), classes=("dark", "light")),
            **settings,
        }
    )
    return model.eval()


def pictures(batch=3, size=(101, 118)):
    """Return smooth random colour images (batch, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def graphs(model):
    return large_graphs(model)


@pytest.fixture(scope="module")
def folder(graphs, tmp_path_factory):
    """A folder with the three files of one export."""
    folder = tmp_path_factory.mktemp("exported")
    write_onnx(graphs.graph, folder / "model.onnx", graphs.beside)
    return folder


def assert_same(actual, expected):
    """Check that two explanations are equal, tensors within TOLERANCE."""
    for name in ("logits", "keypoints", "patches", "thumbnail", "weights", "images"):
        expected_value = getattr(expected, name)
        torch.testing.assert_close(getattr(actual, name), expected_value, atol=TOLERANCE, rtol=0)
    assert (actual.size, actual.classes) == (expected.size, expected.classes)


# In the small image, locations are scored on one thumbnail. In the large image, a coarser thumbnail
# selects regions, and locations are scored within them.
@pytest.mark.parametrize("size", [(90, 101), (411, 350)])
def test_explanations_equal_those_of_pytorch_for_any_image_and_batch_size(size, model, folder):
    loaded = load_onnx(folder / "model.onnx")
    assert (loaded.detector.factor(size) > 1) == (size[0] > 400)
    images = pictures(3, size)
    explanation = model.explain(images)
    for batch in (1, 3):
        assert_same(loaded.explain(images[:batch]), model.explain(images[:batch]))
    keypoints = explanation.keypoints.roll(1, 0)
    logits = model.classify_at(images, keypoints)
    assert not torch.allclose(logits, explanation.logits, atol=TOLERANCE)
    torch.testing.assert_close(
        loaded.classify_at(images, keypoints), logits, atol=TOLERANCE, rtol=0
    )
    scores = [network.locate(network.view(images)).score for network in (loaded, model)]
    torch.testing.assert_close(scores[0], scores[1], atol=TOLERANCE, rtol=0)


def test_files_give_the_same_results_as_pytorch_for_all_tasks(model, folder, tmp_path):
    loaded = load_onnx(folder / "model.onnx")
    pixels = (pictures(1, (400, 560))[0] * 255).byte().permute(1, 2, 0).numpy()
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(64, 64), photometric="rgb")
    Image.fromarray(pixels[:250, :300]).save(tmp_path / "b.png")
    files = LargeFiles([tmp_path / "a.tif", tmp_path / "b.png"], 3)
    assert_same(loaded.explain(files), model.explain(files))
    located = Located(torch.zeros(2, 5, 2))  # all 5 keypoints in the centre of each image
    logits, expected = (
        network.decide(network.view(files), located).task_logits for network in (loaded, model)
    )
    assert logits.shape == (2, 2, 2)  # images, tasks, classes
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)


def test_a_model_without_regions_is_exported_to_two_files(tmp_path):
    model = make_model(regions=0, in_channels=1, inputs=Inputs(), tasks=("class",))
    graph, parts = exported(model)
    write_onnx(graph, tmp_path / "m.onnx", parts)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m-patches.onnx", "m.onnx"]
    images = pictures(2, (160, 170))[:, :1]
    assert_same(load(tmp_path / "m.onnx").explain(images), model.explain(images))


def test_onnxruntime_reads_the_files_directly_for_any_size(model, folder):
    thumbnail = pictures(2, (26, 31))
    for name in ("model.onnx", "model-regions.onnx"):
        onnx.checker.check_model(onnx.load(folder / name), full_check=True)
        session = onnxruntime.InferenceSession(folder / name)
        (scores,) = session.run(["scores"], {"thumbnail": thumbnail.numpy()})
        assert scores.shape == (2, 13, 15)
    session = onnxruntime.InferenceSession(folder / "model-patches.onnx")
    assert [tensor.name for tensor in session.get_inputs()] == ["patches", "keypoints"]
    explanation = model.explain(pictures())
    inputs = {"patches": explanation.patches.numpy(), "keypoints": explanation.keypoints.numpy()}
    logits, weights = session.run(["logits", "weights"], inputs)
    torch.testing.assert_close(
        torch.from_numpy(logits[:, 0]), explanation.logits, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        torch.from_numpy(weights[:, 0]), explanation.weights, atol=1e-4, rtol=0
    )


def test_the_files_hold_the_settings_but_no_paths(model, folder):
    loaded = load_onnx(folder / "model.onnx")
    assert about(loaded).config == json.loads(json.dumps(model.settings()))
    assert loaded.tasks == ("class", "other")
    assert sum(parameter.numel() for parameter in loaded.parameters()) == 0
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [
        "model-patches.onnx",
        "model-regions.onnx",
        "model.onnx",
    ]
    for file in files:
        assert b".py" not in file.read_bytes()
        assert [entry.key for entry in onnx.load(file).metadata_props] == ["foveal"]


def _delete(name):
    return lambda folder: (folder / name).unlink()


def _truncate(name):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


def _swap_parts(folder):
    shutil.copy(folder / "model-regions.onnx", folder / "model-patches.onnx")


def _change_metadata(**changes):
    def damage(folder):
        proto = onnx.load(folder / "model.onnx")
        metadata = json.loads(proto.metadata_props[0].value)
        for name, value in changes.items():
            metadata[name] = {**metadata[name], **value} if isinstance(value, dict) else value
        proto.metadata_props[0].value = json.dumps(metadata)
        onnx.save(proto, folder / "model.onnx")

    return damage


def _change_settings(**changes):
    """Change settings of the model, its detector and its head, where they have them."""

    def damage(folder):
        config = load_onnx(folder / "model.onnx").about.config
        parts = {part: _updated(config[part], changes) for part in ("detector", "head")}
        _change_metadata(config={**_updated(config, changes), **parts})(folder)

    return damage


def _updated(settings, changes):
    return settings | {name: value for name, value in changes.items() if name in settings}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_delete("model.onnx"), "Cannot read .*model.onnx: No such file"),
        (_delete("model-patches.onnx"), "Cannot read .*model-patches.onnx: No such file"),
        (_truncate("model.onnx"), "model.onnx (is not an ONNX file|:)"),
        (
            _truncate("model-regions.onnx"),
            "model-regions.onnx comes from a different export than model.onnx",
        ),
        (_swap_parts, "model-patches.onnx comes from a different export than model.onnx"),
        (
            _change_metadata(beside={"../../etc/passwd": "0"}),
            "metadata are damaged: a part is named '../../etc",
        ),
        (_change_metadata(beside=[]), "metadata are damaged"),
        (_change_metadata(config=[]), "metadata are damaged: config is not a mapping"),
        (_change_settings(patch_size=2**40), "Expected patch_size from 1 to 1024"),
        (_change_settings(patch_size=1000), "damaged: the patches have another shape"),
        (_change_settings(keypoints=6), "damaged: the patches have another shape"),
        (_change_settings(shrink="four"), "Expected shrink to be an integer, but got 'four'"),
        (_change_settings(shrink=0), "Expected shrink"),
        (_change_settings(regions=0), "damaged: they name the wrong parts"),
    ],
)
def test_a_damaged_or_foreign_export_gives_a_one_line_error(damage, message, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    damage(copy)
    with pytest.raises(UserError, match=message) as error:
        load_onnx(copy / "model.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["patches", "regions"])
def test_a_part_file_cannot_be_loaded_as_a_model(part, folder):
    with pytest.raises(
        UserError, match=r"model-\w+\.onnx: Expected the main file of a high-resolution"
    ):
        load_onnx(folder / f"model-{part}.onnx")


def test_a_failed_write_leaves_no_partial_export(graphs, tmp_path):
    (tmp_path / "m-regions.onnx").mkdir()
    with pytest.raises(UserError, match=r"Cannot write .*m-regions\.onnx"):
        write_onnx(graphs.graph, tmp_path / "m.onnx", graphs.beside)
    assert not (tmp_path / "m.onnx").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes that differ in the shade of a square."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, shade in (("dark", 90), ("light", 250)):
        (folder / name).mkdir()
        for index in range(8):
            pixels = np.full((140, 120, 3), 20, np.uint8)
            y, x = generator.integers(10, 90, 2)
            pixels[y : y + 20, x : x + 20] = shade
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def test_the_commands_export_explain_and_evaluate_with_onnx(
    photos, tmp_path, run, explain_with_each_runtime
):
    weights, file = tmp_path / "model", tmp_path / "out" / "model.onnx"
    weights.mkdir()
    make_model(tasks=("class",), regions=0).save_weights(weights)
    assert run("export", weights, "--out", file)[:2] == (0, f"{file}\n")
    for output in explain_with_each_runtime(
        weights, file, photos / "light" / "0.png", atol=TOLERANCE
    ):
        assert output["size_px"] == {"height": 140, "width": 120}
    figures, expected = (
        json.loads(run("evaluate", model, "--data", photos, "--json")[1])
        for model in (file, weights)
    )
    assert figures.pop("runtime") == "onnx"
    assert set(figures) == set(expected)
    for name in set(figures) - {"model", "latency_ms"}:
        assert figures[name] == pytest.approx(expected[name]), name
    status, out, err = run("export", weights, "--out", file, "--size", "90x90")
    assert (status, out) == (1, "")
    assert "reads images of any size: omit the size" in err


def test_unreadable_files_are_reported_and_the_others_are_explained(folder, tmp_path, run):
    Image.new("RGB", (200, 20)).save(tmp_path / "small.png")
    Image.new("RGB", (200, 200)).save(tmp_path / "good.png")
    tifffile.imwrite(tmp_path / "truncated.tif", np.zeros((200, 200, 3), np.uint8), tile=(64, 64))
    content = (tmp_path / "truncated.tif").read_bytes()
    (tmp_path / "truncated.tif").write_bytes(content[: len(content) // 2])
    files = [tmp_path / name for name in ("small.png", "truncated.tif", "good.png")]
    status, out, err = run("explain", folder / "model.onnx", *files, "--json")
    results = json.loads(out)["images"]
    assert status == 1
    assert "at least 24x24 pixels" in results[0]["error"]
    assert "truncated" in results[1]["error"]
    assert len(results[2]["keypoints"]) == 5
    assert len(err.strip().splitlines()) == 2


def train_model(data):
    """Return a model trained to classify dark and light squares."""
    model = make_model(tasks=("class",), explore=0.3).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    view = model.view(data.images, torch.arange(len(data)))
    for _ in range(40):
        optimizer.zero_grad()
        logits = model.observe(view).logits
        torch.nn.functional.cross_entropy(logits, data.labels).backward()
        optimizer.step()
    return model.eval()


def operators(proto):
    """Return the names of the operators in a graph."""
    return {node.op_type for node in proto.graph.node}


def test_int8_keeps_the_detector_in_float_if_that_saves_the_accuracy_and_is_refused_if_not(
    photos, graphs, monkeypatch
):
    data = load_large(photos, "train")
    before = graphs.graph.SerializeToString()
    # Accuracies of the float model, of int8 in all parts, and of int8 in the classifier only.
    accuracies = iter([0.95, 0.9, 0.949])
    monkeypatch.setattr(large_int8, "_accuracy", lambda *_: next(accuracies))
    quantized = as_int8_large(graphs, data, data)
    assert quantized.part == "classifier"
    assert (quantized.float_accuracy, quantized.accuracy) == (0.95, 0.949)
    assert "QuantizeLinear" in operators(quantized.beside["patches"])
    for proto in (quantized.graph, quantized.beside["regions"]):
        assert "QuantizeLinear" not in operators(proto)
    assert graphs.graph.SerializeToString() == before
    accuracies = iter([0.95, 0.90, 0.91])
    with pytest.raises(UserError, match=r"accuracy on photos.* would lose 4\.0"):
        as_int8_large(graphs, data, data)


def test_int8_keeps_the_accuracy_and_prints_it(photos, tmp_path, run):
    weights, file = tmp_path / "model", tmp_path / "model.onnx"
    weights.mkdir()
    train, val = (load_large(photos, split) for split in ("train", "val"))
    model = train_model(train)
    model.save_weights(weights)
    status, out, err = run("export", weights, "--out", file, "--int8", "--data", photos)
    assert (status, out) == (0, f"{file}\n")
    assert "int8 (all): 100.00% on the validation images" in err
    for part in ("", "-patches", "-regions"):
        assert "QuantizeLinear" in operators(onnx.load(tmp_path / f"model{part}.onnx"))
    quantized_model = load_onnx(file)
    assert evaluate(quantized_model, val)["accuracy"] == 1
    actual, expected = quantized_model.explain(val.images), model.explain(val.images)
    assert 0 < (actual.logits - expected.logits).abs().max() < 1
