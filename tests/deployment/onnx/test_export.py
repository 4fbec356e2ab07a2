"""ONNX export of a model to one file: equality with PyTorch, damaged files and int8."""

import json
import sys
from dataclasses import fields

import numpy as np
import onnx
import pytest
import torch

from foveal import zoo
from foveal.datasets import ImageSet
from foveal.deployment.onnx import about, as_onnx, exported, load, load_onnx, onnx_graph, write_onnx
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.images import WholeView
from foveal.metrics import evaluate
from foveal.models import build_model
from foveal.models.abilities import Ability
from foveal.models.attention_maps import Attended

TOLERANCE = 1e-4  # for logits up to 30; the runtimes round in a different order
CLASSES = [f"digit {i}" for i in range(10)]
FOCUS = {
    "name": "focus",
    "detector": {"name": "heatmap", "keypoints": 3},
    "inputs": {"size": [28, 28], "mean": [0.13], "std": [0.31], "classes": CLASSES},
}
ATTENTION = {
    "name": "attention",
    "backbone": {"name": "vgg", "in_channels": 1, "stages": [[8], [8, 12], [12]], "whiten": 2},
    "inputs": {"size": [28, 28]},
}
# The model of the published paper, whose keypoints have a scale each: the size of their patch.
PUBLISHED = {"name": "published", "inputs": {"size": [28, 28]}}


def make_model(settings):
    torch.manual_seed(0)
    return build_model(settings).eval()


def pictures(model, batch=4):
    """Return smooth random images (batch, C, H, W) in [0, 1] of a size that the model accepts."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, model.in_channels, 9, 9, generator=generator)
    size = model.inputs.usual_size or (300, 310)  # for a model of any size
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def assert_same(actual, expected):
    """Check that two explanations are equal, tensors within TOLERANCE."""
    for field in fields(Explanation):
        expected_value, actual_value = getattr(expected, field.name), getattr(actual, field.name)
        if isinstance(expected_value, torch.Tensor):
            torch.testing.assert_close(actual_value, expected_value, atol=TOLERANCE, rtol=0)
        else:
            assert actual_value == expected_value


@pytest.fixture(scope="module")
def exported_model(tmp_path_factory):
    """A model and the file that it was exported to."""
    model = make_model(FOCUS)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(onnx_graph(model), path)
    return model, path


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_zoo_model_gives_the_same_results_with_onnx_as_with_pytorch(name):
    model = zoo.load(name)
    graph, parts = exported(model)
    loaded = as_onnx(graph, beside=parts)
    images = pictures(model)
    assert_same(loaded.explain(images), model.explain(images))
    assert_same(loaded.explain(images[:1]), model.explain(images[:1]))
    if Ability.GIVEN_KEYPOINTS in model.abilities:
        explanation = model.explain(images)
        keypoints = explanation.keypoints.roll(1, 0) + 0.3
        scales = None if explanation.scales is None else explanation.scales.roll(1, 0)
        logits = model.classify_at(images, keypoints, scales)
        assert not torch.allclose(logits, explanation.logits, atol=0.01)
        torch.testing.assert_close(
            loaded.classify_at(images, keypoints, scales), logits, atol=TOLERANCE, rtol=0
        )


def test_one_file_is_written_and_suffices_to_explain(exported_model):
    model, path = exported_model
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    loaded = load_onnx(path)
    assert about(loaded).config == json.loads(json.dumps(model.settings()))
    assert about(model) is None
    assert loaded.inputs.classes == tuple(CLASSES)
    images = pictures(model)
    assert_same(loaded.explain(images), model.explain(images))


def test_onnxruntime_reads_the_file_directly_for_any_batch_size(exported_model):
    import onnxruntime

    model, path = exported_model
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    (images_input,) = session.get_inputs()
    assert (images_input.name, images_input.shape[1:]) == ("images", [1, 28, 28])
    assert [output.name for output in session.get_outputs()] == ["logits", "keypoints", "patches"]
    for batch in (1, 3):
        images = pictures(model, batch)
        logits, _, patches = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-4, rtol=0)
        assert patches.shape == (batch, 3, 1, 5, 5)


def test_the_file_holds_no_paths_or_debug_information(exported_model):
    _, path = exported_model
    graph = onnx.load(path)
    parts = (graph.graph, *graph.graph.node, *graph.graph.value_info)
    assert not any(part.metadata_props or part.doc_string for part in parts)
    assert [entry.key for entry in graph.metadata_props] == ["foveal"]
    assert b".py" not in path.read_bytes()


def test_metrics_with_onnx_equal_those_with_pytorch():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = ImageSet("synthetic", "test", pixels, torch.arange(40) % 10, tuple(CLASSES))
    runtime_specific = {"model", "latency_ms", "parameters", "macs"}
    for settings in (PUBLISHED, ATTENTION):
        model = make_model(settings)
        expected = evaluate(model, data)
        figures = evaluate(as_onnx(onnx_graph(model)), data)
        assert set(figures) == set(expected)
        for name in set(expected) - runtime_specific:
            assert figures[name] == pytest.approx(expected[name], abs=0.03), name


def test_an_exported_attention_model_accepts_given_maps():
    model = make_model(ATTENTION)
    loaded = as_onnx(onnx_graph(model))
    assert Ability.GIVEN_MAPS in loaded.abilities
    images = pictures(model)
    features, maps = model.attend(model.view(images))
    onnx_features, onnx_maps = loaded.attend(loaded.view(images))
    uniform_maps = [torch.full_like(map_, 1 / map_[0].numel()) for map_ in maps]
    torch.testing.assert_close(onnx_maps, maps, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        loaded.decide(loaded.view(images), Attended(onnx_features, uniform_maps)).logits,
        model.combine(features, uniform_maps),
        atol=TOLERANCE,
        rtol=0,
    )


def test_classifying_at_keypoints_without_their_scales_is_an_error():
    model = make_model(PUBLISHED)
    images = pictures(model)
    keypoints = model.locate(WholeView(images)).xy
    with pytest.raises(ValueError, match="Expected scales"):
        as_onnx(onnx_graph(model)).classify_at(images, keypoints)


def test_exporting_a_model_of_any_size_requires_a_size():
    model = make_model({"name": "cnn"})
    with pytest.raises(UserError, match="pass size="):
        onnx_graph(model)
    loaded = as_onnx(onnx_graph(model, size=(17, 31)))
    assert loaded.inputs.size == (17, 31)
    with pytest.raises(UserError, match="cannot read this"):
        loaded(torch.rand(1, 1, 28, 28))


def test_a_model_that_reads_regions_is_not_exported_as_a_single_graph():
    with pytest.raises(UserError, match="cannot be exported as a single graph"):
        onnx_graph(make_model({"name": "high-res"}), size=(256, 256))


def test_exporting_leaves_the_model_unchanged():
    model = make_model(PUBLISHED).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    onnx_graph(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _delete(path):
    path.unlink()


def _write_png(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 40)


def _remove_metadata(path):
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)


def _damage_metadata(path):
    proto = onnx.load(path)
    proto.metadata_props[0].value = '{"inputs": {"sise": 3}}'
    onnx.save(proto, path)


def _rename_an_output(path):
    proto = onnx.load(path)
    metadata = json.loads(proto.metadata_props[0].value)
    metadata["names"]["logits"] = "nowhere"
    proto.metadata_props[0].value = json.dumps(metadata)
    onnx.save(proto, path)


def _refer_to_an_external_file(path):
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "/etc/hostname"), ("offset", "0"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    onnx.save(proto, path)


def _write_nan(path):
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.dtype.kind == "f":
            values.flat[0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)


def _nest_metadata(path):
    proto = onnx.load(path)
    proto.metadata_props[0].value = "[" * 100_000
    onnx.save(proto, path)


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _delete,
        _write_png,
        _remove_metadata,
        _damage_metadata,
        _rename_an_output,
        _refer_to_an_external_file,
        _write_nan,
        _nest_metadata,
    ],
)
def test_a_damaged_or_foreign_file_gives_a_one_line_error(damage, exported_model, tmp_path):
    model, path = exported_model
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    damage(copy)
    with pytest.raises(UserError) as error:
        load_onnx(copy)(pictures(model))
    assert "\n" not in str(error.value)


def test_the_runtime_is_chosen_by_name_or_file_type(exported_model):
    _, path = exported_model
    assert load(path).name == "onnx"
    assert load("mnist-cnn").name == "cnn"
    assert load("mnist-cnn", "onnx").name == "onnx"
    with pytest.raises(UserError, match=r"Unknown runtime 'onyx'\. Did you mean 'onnx'"):
        load("mnist-cnn", "onyx")


def test_a_missing_package_gives_an_error_that_names_the_extra(exported_model, monkeypatch):
    model, path = exported_model
    missing = "pip install 'foveal\\[onnx\\]'"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=f"This needs onnxruntime: {missing}"):
        load_onnx(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=f"This needs onnx: {missing}"):
        load_onnx(path)
    with pytest.raises(UserError, match=missing):
        onnx_graph(model)


def test_the_commands_export_and_explain_with_onnx(tmp_path, run, explain_with_each_runtime):
    from PIL import Image

    folder = tmp_path / "model"
    folder.mkdir()
    make_model(FOCUS).save_weights(folder)
    file, picture = tmp_path / "out" / "model.onnx", tmp_path / "picture.png"
    Image.radial_gradient("L").resize((28, 28)).save(picture)
    assert run("export", folder, "--out", file)[:2] == (0, f"{file}\n")
    outputs = explain_with_each_runtime(folder, file, picture)
    assert len({output["prediction"] for output in outputs}) == 1


def test_the_evaluate_command_gives_the_same_figures_with_onnx_as_with_pytorch(tmp_path, run):
    folder, file = tmp_path / "model", tmp_path / "model.onnx"
    folder.mkdir()
    make_model({"name": "cnn", "widths": [8, 8], "inputs": {"size": [28, 28]}}).save_weights(folder)
    assert run("export", folder, "--out", file)[0] == 0
    figures, expected = (
        json.loads(run("evaluate", model, "--data", "mnist-5k", "--json")[1])
        for model in (file, folder)
    )
    assert figures.pop("runtime") == "onnx"
    assert set(figures) == set(expected)
    assert figures["accuracy"] == pytest.approx(expected["accuracy"], abs=0.002)
    assert (figures["parameters"], figures["macs"]) == (expected["parameters"], expected["macs"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "mnist-focsu", "--out", "x.onnx"], "Did you mean 'mnist-focus'"),
        (["export", "mnist-cnn", "--out", "x.onnx", "--size", "28"], "Expected --size such as"),
        (["export", "mnist-cnn", "--out", "FILE/x.onnx"], "Cannot write"),
        (["explain", "mnist-cnn", "x.png", "--runtime", "tensorrt"], "Unknown runtime"),
        (["explain", "nowhere.onnx", "x.png"], "Cannot read nowhere.onnx"),
        (
            ["explain", "mnist-cnn", "x.png", "--runtime", "onnx", "--method", "grad-cam"],
            "requires PyTorch",
        ),
        (
            ["evaluate", "mnist-cnn", "--data", "mnist-5k", "--runtime", "onnx", "--card"],
            "A card holds PyTorch's figures",
        ),
    ],
)
def test_invalid_arguments_give_a_one_line_error(arguments, message, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def _train_and_val_sets():
    """Return training and validation images whose class is the position of a bright stripe."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    pixels = torch.randint(0, 60, (200, 1, 28, 28), generator=generator, dtype=torch.uint8)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[:, 3 + 2 * label : 7 + 2 * label] += 150
    data = ImageSet("made", "train", pixels, labels, tuple(CLASSES))
    return data.subset(torch.arange(100)), data.subset(torch.arange(100, 200))


def _train(settings, train):
    """Return a model trained for 60 steps on all training images."""
    model = make_model(settings).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(train.images / 255), train.labels).backward()
        optimizer.step()
    return model.eval()


def test_int8_keeps_the_accuracy_in_under_40_percent_of_the_bytes():
    from foveal.deployment.onnx.int8 import as_int8

    train, val = _train_and_val_sets()
    model = _train({"name": "cnn", "inputs": {"size": [28, 28]}}, train)
    graph = onnx_graph(model)
    before = graph.SerializeToString()
    quantized = as_int8(graph, train, val)
    assert graph.SerializeToString() == before
    assert quantized.float_accuracy > 0.9
    assert quantized.accuracy_loss <= 0.002
    assert len(quantized.graph.SerializeToString()) < 0.4 * len(before)
    operators = {node.op_type for node in quantized.graph.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    quantized_model = as_onnx(quantized.graph)
    assert quantized_model.inputs.classes == model.inputs.classes
    logits = quantized_model.explain(val.images / 255).logits
    assert float((logits.argmax(1) == val.labels).float().mean()) == quantized.accuracy


def test_int8_keeps_the_detector_in_float_if_that_saves_the_accuracy_and_is_refused_if_not(
    monkeypatch,
):
    from foveal.deployment.onnx import int8

    train, val = _train_and_val_sets()
    graph = onnx_graph(make_model(FOCUS))
    # Accuracies of the float model, of int8 in all parts, and of int8 in the classifier only.
    accuracies = iter([0.95, 0.90, 0.949])
    monkeypatch.setattr(int8, "accuracy", lambda *_: next(accuracies))
    quantized = int8.as_int8(graph, train, val)
    assert (quantized.part, quantized.accuracy) == ("classifier", 0.949)
    detector_nodes = quantized.graph.graph.node[:6]
    assert not any(node.op_type == "QuantizeLinear" for node in detector_nodes)
    accuracies = iter([0.95, 0.90, 0.91])
    with pytest.raises(UserError, match=r"accuracy on made.* would lose 4\.0"):
        int8.as_int8(graph, train, val)
