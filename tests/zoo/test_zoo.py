"""The zoo, the set of shipped models: loading, sizes, and agreement with the models' cards."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from foveal import zoo
from foveal.datasets import load_images, load_large
from foveal.foundation.errors import UserError
from foveal.images.sizing import ShortSide
from foveal.metrics import accuracy, evaluate
from foveal.metrics.classes import with_model_classes
from foveal.models import SmallCNN
from foveal.models.abilities import Ability
from foveal.models.weights import SCALE, as_difference
from foveal.training import load_recipe, parse_recipe

KERNEL = "backbone.top.conv.weight"  # the last kernel of the backbone EfficientNet-Lite0
NAMES = zoo.names()
PHOTOS = ["imagenet"]  # its backbone was not trained by a recipe of Foveal
TRAINED = [name for name in NAMES if name not in PHOTOS]
LARGE = [name for name in NAMES if zoo.card(name)["recipe"]["model"]["name"] == "high-res"]


@pytest.mark.parametrize("name", TRAINED)
def test_shipped_model_is_small_and_has_a_card_with_figures_of_the_test_set(name):
    folder = zoo.folder(name)
    card = zoo.card(name)
    model = zoo.load(name)
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    is_small = (
        Ability.GIVEN_KEYPOINTS in model.abilities or isinstance(model, SmallCNN)
    ) and "glimpse" not in name
    max_megabytes = 1 if is_small else 8
    if Ability.CROPS in model.abilities:
        max_megabytes = 3
    assert megabytes <= max_megabytes
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".csv"}
    assert card["figures"]["split"] == "test"
    test_counts = {
        "clothing": 372,
        "deeppcb": 1_000,
        **dict.fromkeys((zoo.card(large)["trained_on"] for large in LARGE), 1_000),
    }
    assert card["figures"]["images"] == test_counts.get(card["trained_on"], 10_000)
    if "-saliency" in name:  # a reconstruction model
        assert model.num_classes == 0
    else:
        assert model.num_classes == (2 if "pcb" in name else 10)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_recipe_on_the_card_equals_the_shipped_recipe(name):
    assert parse_recipe(zoo.card(name)["recipe"]) == load_recipe(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("-wide")])
def test_wide_model_reads_at_most_a_quarter_of_the_image(name):
    model = zoo.load(name)
    assert Ability.GIVEN_KEYPOINTS in model.abilities
    height, width = model.inputs.size
    assert model.detector.keypoints * model.patch_size**2 <= 0.25 * height * width


def test_small_learned_model_stays_within_its_cost_limits():
    figures = zoo.card("mnist-focus-plain")["figures"]
    assert figures["parameters"] <= 100_000
    assert figures["macs"] <= 1_500_000


@pytest.mark.parametrize("data", ["mnist", "fashion-mnist", "cifar10"])
def test_cards_of_honest_and_accurate_models_refer_to_each_other(data):
    honest, plain = f"{data}-focus", f"{data}-focus-plain"
    assert (
        f"{plain}, trained for accuracy alone, is more accurate"
        in zoo.card(honest)["recipe"]["about"]
    )
    assert f"{honest} is trained to prevent that" in zoo.card(plain)["recipe"]["about"]
    honest_figures, plain_figures = (zoo.card(name)["figures"] for name in (honest, plain))
    assert honest_figures["accuracy"] < plain_figures["accuracy"]
    assert honest_figures["position_leakage"] < plain_figures["position_leakage"]
    assert honest_figures["content_following"] > plain_figures["content_following"]


DIGITS = [name for name in NAMES if name.startswith("mnist-") and "-saliency" not in name]


@pytest.mark.parametrize("name", DIGITS)
def test_mnist_models_reach_their_accuracy_on_unseen_digits(name):
    images = load_images("mnist-5k", "test")
    card = zoo.card(name)
    assert abs(accuracy(zoo.load(name), images) - card["figures"]["accuracy"]) < 0.03


@pytest.mark.full_data
@pytest.mark.parametrize("name", LARGE)
def test_high_resolution_model_reaches_the_accuracy_on_its_card(name, full_data):
    card = zoo.card(name)
    images = load_large(card["recipe"]["data"]["name"], "test", data_dir=full_data, limit=100)
    figures = evaluate(zoo.load(name), images, batch_size=16)
    assert figures["accuracy"] > card["figures"]["accuracy"] - 0.04
    assert figures["accuracy_mean"] > card["figures"]["accuracy_mean"] - 0.06


@pytest.mark.full_data
@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if name.endswith(("-focus", "-focus-plain")) and name not in LARGE],
)
def test_measured_accuracy_equals_the_accuracy_on_the_card(name, full_data):
    card = zoo.card(name)
    model = zoo.load(name)
    options = {"size": model.inputs.sizing, "channels": model.in_channels, "data_dir": full_data}
    images = load_images(card["recipe"]["data"]["name"], "test", **options)
    # Another processor rounds differently, which may change a prediction or two.
    tolerance = max(0.001, 2 / len(images) + 1e-9)
    assert abs(accuracy(model, images) - card["figures"]["accuracy"]) < tolerance


def test_missing_local_folder_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(zoo, "_download", lambda name: pytest.fail(f"{name} was requested"))
    with pytest.raises(UserError, match=r"The folder runs/gone does not exist\."):
        zoo.load("runs/gone")


def test_hub_model_is_loaded_from_its_two_files(tmp_path, monkeypatch):
    requests = []

    def download(name, file):
        requests.append((name, file))
        return str(zoo.folder("mnist-cnn") / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert zoo.settings("owner/digits") == zoo.settings("mnist-cnn")
    assert requests == [("owner/digits", "config.json"), ("owner/digits", "model.safetensors")]


def test_unreachable_hub_gives_a_one_line_error(monkeypatch):
    def download(name, file):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError, match=r"the Hub does not provide it: no route to host$"):
        zoo.load("owner/digits")


def test_curve_is_read_as_numbers_or_rejected(tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((zoo.folder("mnist-cnn") / file).read_bytes())
    assert zoo.curve(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("epoch,val_accuracy\n0,0.5\n1,0.75\n")
    assert zoo.curve(tmp_path) == {"epoch": [0, 1], "val_accuracy": [0.5, 0.75]}
    for text in ("epoch,val_accuracy\n0,good\n", "epoch,val_accuracy\n0\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.csv is not a table of numbers"):
            zoo.curve(tmp_path)


def test_clothing_model_stores_only_the_tuned_part_of_its_backbone():
    with safe_open(zoo.folder("clothing-attention") / "model.safetensors", "pt") as file:
        names = set(file.keys())
    frozen = ("backbone.stem.", *(f"backbone.stages.{stage}." for stage in range(5)))
    assert not [name for name in names if name.startswith(frozen)]
    assert any(name.startswith("backbone.top.") for name in names)


def test_imagenet_model_stores_no_copy_of_its_backbone():
    folder, model = zoo.folder("imagenet"), zoo.load("imagenet")
    assert (folder / "model.safetensors").stat().st_size < 2.6e6
    assert model.num_classes == len(set(model.inputs.classes)) == len(set(model.inputs.ids)) == 1000
    assert model.inputs.classes[134] == "crane (bird)"
    assert (model.inputs.ids[134], model.inputs.short_side) == ("n02012849", 224)


def test_shipped_backbone_weights_are_saved_only_if_they_changed(tmp_path):
    model = zoo.load("imagenet")
    model.save_pretrained(tmp_path / "same")
    with torch.no_grad():
        model.backbone.top.conv.weight[0] += 1
    model.save_pretrained(tmp_path / "tuned")
    unchanged, tuned = (
        load_file(tmp_path / name / "model.safetensors") for name in ("same", "tuned")
    )
    assert set(unchanged) == {"head.1.weight", "head.1.bias"}
    assert set(tuned) - set(unchanged) == {"backbone.top.conv.weight"}
    restored = zoo.load(tmp_path / "tuned")
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(restored(images), model.eval()(images))


@pytest.mark.full_data
def test_imagenet_model_classifies_photographs(full_data):
    images = load_images("imagenet-val-1000", "test", size=ShortSide(224), data_dir=full_data)
    subset = images.subset(torch.arange(0, len(images), 5))
    relabelled, _ = with_model_classes(subset, zoo.load("imagenet"))
    assert accuracy(zoo.load("imagenet"), relabelled) > 0.68


def test_kernel_stored_as_a_difference_is_restored_within_half_a_quantisation_step(tmp_path):
    model = zoo.load("imagenet")
    base = model.backbone.top.conv.weight.clone()
    with torch.no_grad():
        model.backbone.top.conv.weight += 0.01 * torch.randn(base.shape)
    model.save_pretrained(tmp_path)
    tuned = model.backbone.top.conv.weight
    scale = _store_as_difference(tmp_path, tuned, base)
    restored = zoo.load(tmp_path).backbone.top.conv.weight
    assert ((restored - tuned).abs() <= 0.501 * scale.view(-1, 1, 1, 1)).all()
    assert 1e-5 < float((restored - tuned).abs().max().detach()) < 1e-3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base": None}, "not an 8-bit difference"),
        ({"base": torch.zeros(1280, 320, 1, 1)}, "not an 8-bit difference"),
        ({"base": torch.zeros(4, 320, 1, 1, dtype=torch.int8)}, "does not match the weights"),
        ({"scale": torch.zeros(7)}, "does not match the weights"),
        ({"scale": torch.full((1280,), torch.nan)}, "NaN or infinite"),
        ({"scale": torch.zeros(1280, dtype=torch.int64)}, "not an 8-bit difference"),
    ],
)
def test_damaged_difference_is_rejected(tmp_path, changes, reason):
    model = zoo.load("imagenet")
    model.save_pretrained(tmp_path)
    kernel = model.backbone.top.conv.weight
    _store_as_difference(tmp_path, kernel + 0.01, kernel)
    state = load_file(tmp_path / "model.safetensors")
    for name, values in changes.items():
        key = KERNEL if name == "base" else KERNEL + SCALE
        state.pop(key)
        state |= {} if values is None else {key: values}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=reason):
        zoo.load(tmp_path)


def _store_as_difference(folder, weight, base):
    """Store a kernel in a model's file as its 8-bit difference from a base; return the scale."""
    state = load_file(folder / "model.safetensors")
    state[KERNEL], state[KERNEL + SCALE] = as_difference(weight.detach(), base.detach())
    save_file(state, folder / "model.safetensors")
    return state[KERNEL + SCALE]
