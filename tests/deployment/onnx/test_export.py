"""Exported models: one file, the same answers and explanations, and honest about what is wrong."""

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

TOLERANCE = 1e-4  # of logits up to 30: rounding in another order, and nothing else
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
PUBLISHED = {"name": "published", "inputs": {"size": [28, 28]}}  # its patches have scales


def built(settings):
    torch.manual_seed(0)
    return build_model(settings).eval()


def pictures(model, batch=4):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(batch, model.in_channels, 9, 9, generator=generator)
    size = model.inputs.usual_size or (300, 310)  # of a model that reads any
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear")


def assert_same(found, expected):
    for field in fields(Explanation):
        value, other = getattr(expected, field.name), getattr(found, field.name)
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other, value, atol=TOLERANCE, rtol=0)
        else:
            assert other == value


@pytest.fixture(scope="module")
def exported_model(tmp_path_factory):
    """A model and the file that it was exported to."""
    model = built(FOCUS)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    write_onnx(onnx_graph(model), path)
    return model, path


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_zoo_model_answers_and_explains_by_onnx_as_by_pytorch(name):
    model = zoo.load(name)
    graph, beside = exported(model)
    found = as_onnx(graph, beside=beside)
    images = pictures(model)
    assert_same(found.explain(images), model.explain(images))
    assert_same(found.explain(images[:1]), model.explain(images[:1]))
    if Ability.GIVEN_KEYPOINTS in model.abilities:
        seen = model.explain(images)
        keypoints = seen.keypoints.roll(1, 0) + 0.3  # controls look at the same places in each
        scales = None if seen.scales is None else seen.scales.roll(1, 0)
        held = model.classify_at(images, keypoints, scales)
        assert not torch.allclose(held, seen.logits, atol=0.01)
        torch.testing.assert_close(
            found.classify_at(images, keypoints, scales), held, atol=TOLERANCE, rtol=0
        )


def test_a_file_alone_explains_and_no_other_is_written(exported_model):
    model, path = exported_model
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    found = load_onnx(path)
    assert about(found).config == json.loads(json.dumps(model.settings()))
    assert about(model) is None
    assert found.inputs.classes == tuple(CLASSES)
    images = pictures(model)
    assert_same(found.explain(images), model.explain(images))


def test_other_programs_read_named_outputs_for_a_batch_of_any_size(exported_model):
    import onnxruntime

    model, path = exported_model
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    (taken,) = session.get_inputs()
    assert (taken.name, taken.shape[1:]) == ("images", [1, 28, 28])
    assert [output.name for output in session.get_outputs()] == ["logits", "keypoints", "patches"]
    for batch in (1, 3):
        images = pictures(model, batch)
        logits, _, patches = session.run(None, {"images": images.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(images), atol=1e-4, rtol=0)
        assert patches.shape == (batch, 3, 1, 5, 5)


def test_the_file_says_nothing_of_the_machine_that_wrote_it(exported_model):
    _, path = exported_model
    graph = onnx.load(path)
    parts = (graph.graph, *graph.graph.node, *graph.graph.value_info)
    assert not any(part.metadata_props or part.doc_string for part in parts)
    assert [entry.key for entry in graph.metadata_props] == ["foveal"]
    assert b".py" not in path.read_bytes()


def test_honesty_and_cost_are_measured_through_onnx_as_through_pytorch():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 1, 28, 28), generator=generator, dtype=torch.uint8)
    data = ImageSet("made", "test", pixels, torch.arange(40) % 10, tuple(CLASSES))
    for settings in (PUBLISHED, ATTENTION):
        model = built(settings)
        expected = evaluate(model, data)
        found = evaluate(as_onnx(onnx_graph(model)), data)
        own = {"model", "latency_ms", "parameters", "macs"}
        assert set(found) == set(expected)
        for name in set(expected) - own:
            assert found[name] == pytest.approx(expected[name], abs=0.03), name


def test_an_attention_model_takes_other_maps_through_onnx():
    model = built(ATTENTION)
    found = as_onnx(onnx_graph(model))
    assert Ability.GIVEN_MAPS in found.abilities
    images = pictures(model)
    local, maps = model.attend(model.view(images))
    seen, weights = found.attend(found.view(images))
    other = [torch.full_like(each, 1 / each[0].numel()) for each in maps]
    torch.testing.assert_close(weights, maps, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(
        found.decide(found.view(images), Attended(seen, other)).logits,
        model.combine(local, other),
        atol=TOLERANCE,
        rtol=0,
    )


def test_scales_that_are_not_given_are_not_guessed():
    model = built(PUBLISHED)
    images = pictures(model)
    keypoints = model.locate(WholeView(images)).xy
    with pytest.raises(ValueError, match="Expected scales"):
        as_onnx(onnx_graph(model)).classify_at(images, keypoints)


def test_a_model_of_any_size_needs_one_to_be_exported_for():
    model = built({"name": "cnn"})
    with pytest.raises(UserError, match="pass size="):
        onnx_graph(model)
    found = as_onnx(onnx_graph(model, size=(17, 31)))
    assert found.inputs.size == (17, 31)
    with pytest.raises(UserError, match="cannot read this"):
        found(torch.rand(1, 1, 28, 28))


def test_a_model_that_reads_its_image_in_part_is_not_exported_as_if_it_did_not():
    with pytest.raises(UserError, match="cannot be exported as a single graph"):
        onnx_graph(built({"name": "high-res"}), size=(256, 256))


def test_exporting_leaves_the_model_as_it_was():
    model = built(PUBLISHED).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    onnx_graph(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def _truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _nothing(path):
    path.unlink()


def _not_onnx(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 40)


def _foreign(path):
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)


def _damaged(path):
    proto = onnx.load(path)
    proto.metadata_props[0].value = '{"inputs": {"sise": 3}}'
    onnx.save(proto, path)


def _renamed(path):
    proto = onnx.load(path)
    said = json.loads(proto.metadata_props[0].value)
    said["names"]["logits"] = "nowhere"
    proto.metadata_props[0].value = json.dumps(said)
    onnx.save(proto, path)


def _outside(path):
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "/etc/hostname"), ("offset", "0"), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    onnx.save(proto, path)


def _not_finite(path):
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if values.dtype.kind == "f":
            values.flat[0] = np.nan
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)


def _deep(path):
    proto = onnx.load(path)
    proto.metadata_props[0].value = "[" * 100_000
    onnx.save(proto, path)


@pytest.mark.parametrize(
    "spoil",
    [
        *(_truncated, _nothing, _not_onnx, _foreign, _damaged, _renamed, _outside),
        *(_not_finite, _deep),
    ],
)
def test_a_file_that_is_not_whole_or_not_ours_is_one_line(spoil, exported_model, tmp_path):
    model, path = exported_model
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(path.read_bytes())
    spoil(copy)
    with pytest.raises(UserError) as error:
        load_onnx(copy)(pictures(model))
    assert "\n" not in str(error.value)


def test_the_runtime_is_chosen_by_name_or_by_the_file(exported_model):
    _, path = exported_model
    assert load(path).name == "onnx"
    assert load("mnist-cnn").name == "cnn"
    assert load("mnist-cnn", "onnx").name == "onnx"
    with pytest.raises(UserError, match=r"Unknown runtime 'onyx'\. Did you mean 'onnx'"):
        load("mnist-cnn", "onyx")


def test_without_the_extra_the_error_names_it(exported_model, monkeypatch):
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


def test_commands_export_and_explain_by_onnx(tmp_path, run, explained):
    from PIL import Image

    folder = tmp_path / "model"
    folder.mkdir()
    built(FOCUS).save_weights(folder)
    file, picture = tmp_path / "out" / "model.onnx", tmp_path / "picture.png"
    Image.radial_gradient("L").resize((28, 28)).save(picture)
    assert run("export", folder, "--out", file)[:2] == (0, f"{file}\n")
    answers = explained(folder, file, picture)
    assert len({answer["prediction"] for answer in answers}) == 1


def test_evaluate_by_onnx_has_the_figures_of_pytorch(tmp_path, run):
    folder, file = tmp_path / "model", tmp_path / "model.onnx"
    folder.mkdir()
    built({"name": "cnn", "widths": [8, 8], "inputs": {"size": [28, 28]}}).save_weights(folder)
    assert run("export", folder, "--out", file)[0] == 0
    found, expected = (
        json.loads(run("evaluate", model, "--data", "mnist-5k", "--json")[1])
        for model in (file, folder)
    )
    assert found.pop("runtime") == "onnx"
    assert set(found) == set(expected)
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.002)
    assert (found["parameters"], found["macs"]) == (expected["parameters"], expected["macs"])


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
def test_a_mistake_is_one_line(arguments, message, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def _sets():
    """Images whose class is told by where they are bright, to train on and to validate."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 10
    pixels = torch.randint(0, 60, (200, 1, 28, 28), generator=generator, dtype=torch.uint8)
    for image, label in zip(pixels, labels.tolist(), strict=True):
        image[:, 3 + 2 * label : 7 + 2 * label] += 150
    data = ImageSet("made", "train", pixels, labels, tuple(CLASSES))
    return data.subset(torch.arange(100)), data.subset(torch.arange(100, 200))


def _learned(settings, train):
    model = built(settings).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(train.images / 255), train.labels).backward()
        optimizer.step()
    return model.eval()


def test_int8_keeps_the_accuracy_in_a_third_of_the_bytes():
    from foveal.deployment.onnx.int8 import as_int8

    train, val = _sets()
    model = _learned({"name": "cnn", "inputs": {"size": [28, 28]}}, train)
    graph = onnx_graph(model)
    before = graph.SerializeToString()
    found = as_int8(graph, train, val)
    assert graph.SerializeToString() == before
    assert found.float_accuracy > 0.9
    assert found.lost <= 0.002
    assert len(found.graph.SerializeToString()) < 0.4 * len(before)
    kinds = {node.op_type for node in found.graph.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    small = as_onnx(found.graph)
    assert small.inputs.classes == model.inputs.classes
    logits = small.explain(val.images / 255).logits
    assert float((logits.argmax(1) == val.labels).float().mean()) == found.accuracy


def test_int8_that_loses_accuracy_is_refused_and_the_detector_kept_if_that_helps(monkeypatch):
    from foveal.deployment.onnx import int8

    train, val = _sets()
    graph = onnx_graph(built(FOCUS))
    answers = iter([0.95, 0.90, 0.949])
    monkeypatch.setattr(int8, "accuracy", lambda *_: next(answers))
    found = int8.as_int8(graph, train, val)
    assert (found.part, found.accuracy) == ("classifier", 0.949)
    finding = found.graph.graph.node[:6]
    assert not any(node.op_type == "QuantizeLinear" for node in finding)
    answers = iter([0.95, 0.90, 0.91])
    with pytest.raises(UserError, match=r"accuracy on made.* would lose 4\.0"):
        int8.as_int8(graph, train, val)
