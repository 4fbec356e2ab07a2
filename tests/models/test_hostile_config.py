"""Hostile settings, overrides and weights: a one-line error or a working model."""

import copy
import json
import os
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveal import zoo
from foveal.foundation.arguments import short_repr
from foveal.foundation.errors import UserError
from foveal.foundation.model_files import CARD, CONFIG, DIGEST, WEIGHTS, read_card, weights_digest
from foveal.models import SmallCNN, build_model
from foveal.models.weights import parameter_limit
from foveal.training.recipe import load_recipe, parse_recipe, plain_name
from foveal.training.sweeps.sweep import parse_space

MISSING = object()  # stands for the removal of a value
NESTED: list = []  # a list in a list, 30 levels deep
for _ in range(30):
    NESTED = [NESTED]
VALUES = (
    *(None, True, -1, 0, 1, 2, 2.5, 29, 10**9, 2**63, 2**64, -(2**70), 1e300),
    *("NaN", "", "/etc/passwd", [], {}, [[]], [1, 1], NESTED, MISSING),
)
ONE_PER_FAMILY = (
    *("mnist-focus", "mnist-corners", "mnist-glimpse", "mnist-focus-published", "mnist-cnn"),
    *("mnist-attention", "mnist-saliency-vae", "mnist-saliency", "megapixel-mnist-focus"),
    *("cifar10-vgg", "cifar10-san", "cifar10-attention-published"),
)


def value_paths(values, path=()):
    """Yield the path of each value in nested dicts and lists; only the first item of each list."""
    if path:
        yield path
    if isinstance(values, dict):
        for key, inner in values.items():
            yield from value_paths(inner, (*path, key))
    elif isinstance(values, list) and values:
        yield from value_paths(values[0], (*path, 0))


def with_value(settings, path, value):
    """Return settings with the value at a path replaced, or removed if it is MISSING."""
    settings = copy.deepcopy(settings)
    target = settings
    for step in path[:-1]:
        target = target[step]
    if value is MISSING:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    return settings


def check_message(error):
    """Check that the message of an error is one short line."""
    assert "\n" not in str(error)
    assert len(str(error)) < 2000


def check_prediction(model):
    """Check that the logits for one image are finite, at the model's size if it is small."""
    size = model.inputs.size or (300, 300)
    size = size if max(size) <= 64 else (64, 64)
    with torch.no_grad():
        logits = model(torch.rand(1, model.in_channels, *size))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ONE_PER_FAMILY)
def test_any_value_in_a_config_gives_a_one_line_error_or_a_working_model(name, tmp_path):
    folder = zoo.folder(name)
    (tmp_path / WEIGHTS).symlink_to(folder / WEIGHTS)
    settings = json.loads((folder / CONFIG).read_text())
    paths = list(value_paths(settings))
    # Each value is tried for a setting in only some of the models; all pairs would take minutes.
    start = ONE_PER_FAMILY.index(name)
    loaded = 0
    for number, path in enumerate(paths):
        for value in VALUES[(start + number) % 4 :: 4]:
            (tmp_path / CONFIG).write_text(json.dumps(with_value(settings, path, value)))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check_prediction(zoo.load(tmp_path))
                loaded += 1
            except UserError as error:
                check_message(error)
    assert loaded  # some values are valid, such as another image size


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "cnn", "num_classes": ' + "9" * 5000 + "}",
        '{"name": "cnn", "widths": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"name": "cnn", "dropout": NaN}',
        "[]",
        '"cnn"',
        "",
        "\x00",
        '{"name": ["cnn"]}',
        '{"name": "cnn", "\\u0000": 1}',
    ],
)
def test_a_malformed_config_is_a_one_line_error(text, tmp_path):
    (tmp_path / WEIGHTS).symlink_to(zoo.folder("mnist-cnn") / WEIGHTS)
    (tmp_path / CONFIG).write_text(text)
    for load in (zoo.load, SmallCNN.from_pretrained):
        with pytest.raises(UserError) as error:
            load(tmp_path)
        check_message(error.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"widths": [16_384] * 64},
        {"num_classes": 100_000, "widths": [16_384]},
    ],
)
def test_settings_cannot_take_more_memory_than_their_weights(settings, tmp_path):
    config = {**zoo.settings("mnist-cnn"), "inputs": {}, **settings}
    (tmp_path / WEIGHTS).symlink_to(zoo.folder("mnist-cnn") / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"a model with more than .* parameters"):
        zoo.load(tmp_path)
    with pytest.raises(UserError, match="parameters"):
        SmallCNN.from_pretrained(tmp_path)


def test_the_parameter_limit_applies_only_within_its_block():
    with pytest.raises(UserError, match="more than 100 parameters"), parameter_limit(100):
        torch.nn.Linear(10, 10)
    with parameter_limit(110):
        torch.nn.Linear(10, 10)
    torch.nn.Linear(100, 100)


OVERRIDES = (
    *("model.patch_size=-1", "model.patch_size=0", "model.detector.keypoints=0", "model=5"),
    *("seed=18446744073709551615", "model.inputs=5", "model.in_channels=0", "size=[1]"),
    *("model.detector=5", "model.detector.name=[heatmap]", "model.width=1e9", "size=[0, 1]"),
    *("model.hidden=[[]]", "model.inputs.std=[0]", "epochs=.inf", "channels=2", "batch_size=2.5"),
    *("lr=-1", "augment=3", "model.detector.widths=[-1]", "draw=-1", "data.name=[a]"),
    *("a." * 1000 + "b=1", "epochs=" + "9" * 5000, "epochs=" + "[" * 5000, "about=&a [*a, *a]"),
    *("epochs=[&a [1], *a, *a]", "model.classifier=1", "model.detector.x=1"),
)


@pytest.mark.parametrize("override", OVERRIDES, ids=[text[:40] for text in OVERRIDES])
def test_a_hostile_override_is_a_one_line_error(override):
    with pytest.raises(UserError) as error:
        load_recipe("mnist-focus", [override])
    check_message(error.value)


@pytest.mark.parametrize("name", ["mnist-focus", "mnist-attention", "mnist-saliency-vae"])
def test_any_value_in_a_recipe_gives_a_one_line_error_or_a_recipe(name):
    recipe = load_recipe(name).to_dict()
    for path in value_paths(recipe):
        for value in VALUES:
            try:
                parse_recipe(with_value(recipe, path, value))
            except UserError as error:
                check_message(error)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.patch_size=29", "The model cannot read the images of .*29x29"),
        ("size=[1,1]", "The model cannot read the images"),
        ("model.in_channels=2", "Expected in_channels of the detector to be 2"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused_before_training(override, message, tmp_path):
    from foveal.training import train

    recipe = load_recipe("mnist-focus", ["data.limit=100", override])
    with pytest.raises(UserError, match=message):
        train(recipe, tmp_path / "run", data="mnist-5k", progress=False)
    assert not (tmp_path / "run" / WEIGHTS).exists()


BILLION_LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    [
        BILLION_LAUGHS + "name: x\nmodel: {name: cnn}\n",
        "name: x\nmodel: &m {name: cnn, widths: *m}\n",
        "name: x\nmodel: {name: cnn}\ntraining: {epochs: " + "9" * 5000 + "}\n",
        "name: x\nmodel: " + "[" * 3000 + "]" * 3000,
        "name: x\nmodel: {name: cnn, 1: 2}\n",
        "name: x\nmodel: {name: cnn}\n? {a: b}\n: 3\n",
    ],
    ids=["laughs", "cycle", "digits", "deep", "key-number", "key-mapping"],
)
def test_an_exploding_or_deeply_nested_recipe_is_a_one_line_error(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(path)
    check_message(error.value)


@pytest.mark.parametrize("choice", ["lr=&a 1, *a", "lr=" + "[" * 5000, "epochs=" + "9" * 5000])
def test_hostile_choices_of_a_sweep_are_a_one_line_error(choice):
    with pytest.raises(UserError) as error:
        parse_space("mnist-5k-focus", [choice])
    check_message(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("/tmp/x", "../../x", "..", ".", "", "a/b", "a\\b", "C:x", "x\n", "x\x1b[1m", "-x", ".x"),
        *("x.", "con", "LPT1.txt", " x", "x" * 101, "a\ud800", "x|y", None, ["x"], {"a": 1}),
    ],
)
def test_a_recipe_name_must_be_a_plain_name(name):
    with pytest.raises(UserError, match="plain name"):
        parse_recipe({"name": name, "model": {"name": "cnn"}})
    if isinstance(name, str):
        derived = plain_name(f"{name}-focus")
        assert parse_recipe({"name": derived, "model": {"name": "cnn"}}).name == derived


@pytest.mark.parametrize("name", ["my photos (2024)", "größe", "猫", "v1.5_x", 5])
def test_ordinary_folder_names_are_valid_recipe_names(name):
    assert parse_recipe({"name": name, "model": {"name": "cnn"}}).name == str(name)
    assert plain_name(str(name)) == str(name)


@pytest.mark.parametrize("name", zoo.names())
def test_every_zoo_card_has_the_digest_of_its_weights(name):
    assert zoo.card(name)[DIGEST] == weights_digest(zoo.folder(name) / WEIGHTS)


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder of a small model, with a card."""
    SmallCNN(widths=(4, 4)).save_weights(tmp_path)
    card = {"model": "mine", DIGEST: weights_digest(tmp_path / WEIGHTS)}
    (tmp_path / CARD).write_text(json.dumps(card))
    return tmp_path


def test_a_flipped_byte_in_the_weights_is_detected(run):
    zoo.load(run)
    weights = bytearray((run / WEIGHTS).read_bytes())
    weights[-3] ^= 1
    (run / WEIGHTS).write_bytes(weights)
    for load in (zoo.load, SmallCNN.from_pretrained):
        with pytest.raises(UserError, match=r"corrupt, or were replaced.*SHA-256") as error:
            load(run)
        check_message(error.value)


def test_saving_new_weights_removes_the_old_digest(run):
    model = SmallCNN(widths=(4, 4))
    model.save_weights(run)
    assert read_card(run) == {"model": "mine"}
    assert torch.equal(zoo.load(run).head[1].weight, model.head[1].weight)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["features.0.weight", "features.1.running_var", "head.1.bias"])
def test_non_finite_weights_are_refused(run, key, value):
    (run / CARD).unlink()
    state = load_file(run / WEIGHTS)
    state[key].view(-1)[1] = value
    save_file(state, run / WEIGHTS)
    for load in (zoo.load, SmallCNN.from_pretrained):
        with pytest.raises(UserError, match=f"{key} has NaN or infinite values"):
            load(run)


def header(text, length=None):
    """Return the header of a safetensors file, which states its own length or the given length."""
    content = text.encode()
    return struct.pack("<Q", len(content) if length is None else length) + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        header("{}"),
        header("{}", 2**63),
        header("{}", 2**64 - 1),
        header("{}", 50 * 2**20),
        header("[" * 10_000),
        header('{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}')
        + b"4444",
        header('{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}') + b"4444",
        header('{"x":{"dtype":"Q7","shape":[1],"data_offsets":[0,4]}}') + b"4444",
        header('{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"4444",
        header('{"head.1.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + b"4444",
    ],
)
def test_a_hostile_weights_file_is_a_one_line_error(run, content):
    (run / CARD).unlink()
    (run / WEIGHTS).write_bytes(content)
    for load in (zoo.load, SmallCNN.from_pretrained):
        with pytest.raises(UserError) as error:
            load(run)
        check_message(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.uint8])
def test_weights_of_an_unexpected_type_are_refused(run, dtype):
    (run / CARD).unlink()
    state = load_file(run / WEIGHTS)
    save_file({**state, "head.1.weight": state["head.1.weight"].to(dtype)}, run / WEIGHTS)
    with pytest.raises(UserError, match="corrupt"):
        zoo.load(run)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_weights_in_a_fifo_are_refused(run):
    (run / WEIGHTS).unlink()
    os.mkfifo(run / WEIGHTS)
    with pytest.raises(UserError):
        SmallCNN.from_pretrained(run)


@pytest.mark.parametrize(
    "card",
    [
        *("[]", "{", '{"recipe": 5}', '{"figures": []}', '{"trained_on": {}}', "9" * 5000),
        *(f'{{"{DIGEST}": 5}}', "[" * 100_000),
    ],
)
def test_a_hostile_card_is_a_one_line_error(run, card):
    (run / CARD).write_text(card)
    for read in (zoo.card, zoo.load):
        with pytest.raises(UserError) as error:
            read(run)
        check_message(error.value)


def test_too_many_parameters_are_refused_before_allocation():
    code = (
        "import resource, torch\n"
        "from foveal.foundation.errors import UserError\n"
        "from foveal.models import build_model\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    build_model({'name': 'cnn', 'widths': [16384] * 64})\n"
        "except UserError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(process.stdout) < 500_000  # kilobytes; the weights would take 600 GB


def test_values_in_errors_are_short():
    assert len(short_repr("x" * 10**6)) < 110
    assert short_repr(10**5000) == "a value of type int"


def test_a_model_of_an_impossible_size_is_refused():
    with pytest.raises(UserError, match="more than 536,870,912 parameters"):
        build_model({"name": "cnn", "widths": [16_384] * 4})


def test_the_parameter_limit_allows_for_layers_dropped_during_construction(tmp_path):
    pytest.importorskip("timm")
    # timm builds 133 million parameters, of which the backbone keeps 9 million.
    backbone = {"name": "timm", "model": "vgg11"}
    build_model({"name": "plain", "backbone": backbone}).save_weights(tmp_path)
    assert zoo.load(tmp_path).settings()["backbone"]["model"] == "vgg11"


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "focus", "detector": {"name": "heatmap", "keypoints": 3}},
        {"name": "focus", "detector": {"name": "harris", "keypoints": 3}},
        {"name": "zoom"},
        {"name": "glimpse", "backbone": {"name": "vgg"}},
        {"name": "high-res", "in_channels": 1},
        {"name": "published"},
    ],
    ids=str,
)
def test_images_that_are_too_small_are_a_user_error(settings):
    model = build_model(settings).eval()
    with pytest.raises(UserError, match="at least"):
        model(torch.rand(1, model.in_channels, 1, 60))
