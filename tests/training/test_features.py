"""Frozen backbones: features cached on disk, and training of the layers above them.

Depth d is the d-th stage of a backbone, from 1. A backbone frozen to depth d can be cut there: the
features of that depth are computed once, and training starts from them.
"""

import json
from dataclasses import replace

import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file, save_file

from foveal import zoo
from foveal.backbones import EfficientNetLite, TimmBackbone, VGGBackbone
from foveal.datasets import ImageSet, load_images
from foveal.foundation.errors import UserError
from foveal.images.photos import Photos
from foveal.images.sizing import ShortSide
from foveal.models import AttentionNet, Inputs, PlainNet
from foveal.training import parse_recipe, train
from foveal.training.batches import Batches
from foveal.training.feature_files import INDEX, cached_features
from foveal.training.features import Cut, FeatureBatches, logits_of, make_cut, predict_features
from foveal.training.first_hour.probe import near_duplicates, probe
from foveal.training.linear import LabelledVectors, fit_linear
from photo_folders import write_halves

STAGES = [[4], [6], [8]]


def make_model(**options):
    """Return an attention net for photographs whose backbone is frozen to depth 2."""
    torch.manual_seed(0)
    inputs = Inputs(short_side=32, mean=(0.4,), std=(0.2,))
    net = AttentionNet(VGGBackbone(3, STAGES), num_classes=3, inputs=inputs, **options)
    net.backbone.freeze(2)
    return net.eval()


def make_photographs():
    """Return a set of twelve photographs in three sizes, 5, 3 and 4 of each."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((32, 64, 5), (64, 32, 3), (32, 32, 4))  # height, width and number of photographs
    parts = [
        torch.randint(256, (count, 3, height, width), generator=generator).byte()
        for height, width, count in sizes
    ]
    labels = torch.arange(12) % 3
    paths = tuple(f"{index}.png" for index in range(12))
    return ImageSet("photos", "train", Photos(tuple(parts)), labels, ("a", "b", "c"), paths)


def compute_features(net, images, folder, **options):
    """Compute or reuse the cached features; return them and the lines that were reported."""
    lines = []
    cut = make_cut(net, 2, options.get("mirrored", True))
    return cached_features(net, cut, images, folder / "features", notify=lines.append), lines


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_backbone_cut_at_any_depth_gives_the_same_features(depth):
    torch.manual_seed(0)
    backbone = EfficientNetLite().eval()
    images = torch.rand(2, 3, 45, 70)
    with torch.no_grad():
        local, global_vector = backbone(images)
        lower = backbone.begin(images, depth)
        upper, vector = backbone.finish(lower[-1], depth)
    assert torch.equal(vector, global_vector)
    assert len(lower) == depth
    for number, values in enumerate(local, start=1):
        actual = lower[number - 1] if number <= depth else upper[number]
        assert torch.equal(actual, values)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_layers_frozen_to_a_depth_do_not_change(depth):
    torch.manual_seed(0)
    backbone = EfficientNetLite().train()
    backbone.freeze(depth)
    before = {name: values.clone() for name, values in backbone.state_dict().items()}
    trainable = [p for p in backbone.parameters() if p.requires_grad]
    _, global_vector = backbone(torch.rand(2, 3, 64, 64))
    if trainable:
        global_vector.sum().backward()
        torch.optim.SGD(trainable, lr=1.0).step()
    changed = {
        name for name, values in backbone.state_dict().items() if not values.equal(before[name])
    }
    frozen = {
        f"{name}.{key}"
        for number in range(1, depth + 1)
        for stage in backbone.stages_of(number)
        for name, module in backbone.named_modules()
        if module is stage
        for key in stage.state_dict()
    }
    assert not changed & frozen
    # Some of the other weights may keep their value, because their gradient is zero.
    assert len(changed) >= 0.5 * (len(before) - len(frozen))


@pytest.mark.parametrize("depth", [0, 4, -1])
def test_an_invalid_depth_is_an_error(depth):
    with pytest.raises(UserError, match="1 to 3, but got"):
        VGGBackbone(3, STAGES).freeze(depth)


def test_a_backbone_without_stages_can_only_be_frozen_completely():
    backbone = TimmBackbone("test_resnet")
    with pytest.raises(UserError, match="but got 1"):
        backbone.freeze(1)
    backbone.freeze(len(backbone.widths))
    assert not any(p.requires_grad for p in backbone.parameters())
    images = torch.rand(1, 3, 64, 64)
    local, global_vector = backbone(images)
    _, vector = backbone.finish(backbone.begin(images, len(local))[-1], len(local))
    assert torch.equal(vector, global_vector)


def test_a_batch_of_photographs_has_one_size_and_an_epoch_has_each_once():
    images = make_photographs()
    sizes = [(32, 64)] * 5 + [(64, 32)] * 3 + [(32, 32)] * 4  # of each photograph
    batches = Batches(images.images, torch.arange(12), 2, seed=1)  # labelled with their indices
    batch_list = [(tuple(pixels.shape[-2:]), labels.tolist()) for pixels, labels in batches]
    assert len(batch_list) == len(batches) == 3 + 2 + 2
    assert sorted(index for _, labels in batch_list for index in labels) == list(range(12))
    for size, labels in batch_list:
        assert len(labels) <= 2
        for index in labels:
            assert size == sizes[index]
    assert [size for size, _ in batch_list] != sorted(size for size, _ in batch_list)


@pytest.mark.parametrize("depths", [[3], [2, 3], [1, 3]])
def test_cached_features_give_the_logits_of_the_images(tmp_path, depths):
    net, images = make_model(depths=depths), make_photographs()
    features, _ = compute_features(net, images, tmp_path)
    with torch.no_grad():
        expected = torch.cat([net(part.float() / 255) for part in images.images.parts])
    torch.testing.assert_close(predict_features(net, features), expected, atol=5e-3, rtol=1e-2)


def test_each_image_is_mirrored_every_other_epoch(tmp_path):
    net, images = make_model(depths=[3]), make_photographs()
    features, _ = compute_features(net, images, tmp_path)
    mirrored = [net(part.flip(-1).float() / 255) for part in images.images.parts]
    plain = [net(part.float() / 255) for part in images.images.parts]
    expected = [torch.cat(plain).detach(), torch.cat(mirrored).detach()]
    epoch = 0
    batches = FeatureBatches(features, torch.arange(12), 5, seed=0, get_epoch=lambda: epoch)
    is_mirrored = torch.zeros(2, 12, dtype=torch.long)  # in each epoch, for each image
    for number in range(2):
        epoch = number
        for values, indices in batches:
            with torch.no_grad():
                logits = logits_of(net, values, 2)
            distance = torch.stack(
                [(logits - reference[indices]).abs().amax(dim=1) for reference in expected]
            )
            is_mirrored[number, indices] = distance.argmin(dim=0)
    assert torch.equal(is_mirrored[0], 1 - is_mirrored[1])
    assert set(is_mirrored[0].tolist()) == {0, 1}


def test_features_are_cached_until_images_weights_or_settings_change(tmp_path):
    net, images = make_model(depths=[3]), make_photographs()
    first, lines = compute_features(net, images, tmp_path)
    modified_ns = (tmp_path / "features" / INDEX).stat().st_mtime_ns
    reused, lines = compute_features(net, images, tmp_path)
    assert not lines
    assert (tmp_path / "features" / INDEX).stat().st_mtime_ns == modified_ns
    assert torch.equal(first.global_vectors, reused.global_vectors)
    changed = make_photographs()
    changed.images.parts[0][0, 0, 0, 0] += 1
    for other_net, other_images, options in (
        (net, changed, {}),
        (make_model(depths=[2, 3]), images, {}),
        (net, images, {"mirrored": False}),
    ):
        _, lines = compute_features(other_net, other_images, tmp_path, **options)
        assert "computed again" in lines[0]
    with torch.no_grad():
        net.backbone.blocks[0][0].conv.weight.mul_(2)
    _, lines = compute_features(net, images, tmp_path)
    assert "other images or settings" in lines[0]


@pytest.mark.parametrize("damage", ["no index", "no part", "truncated part", "list", "other type"])
def test_incomplete_or_damaged_features_are_computed_again(tmp_path, damage):
    net, images = make_model(depths=[3]), make_photographs()
    first, _ = compute_features(net, images, tmp_path)
    expected = first.global_vectors.clone()
    folder = tmp_path / "features"
    index = folder / INDEX
    part = folder / "part-1-depth-2.npy"
    if damage == "no index":
        index.unlink()
    elif damage == "no part":
        part.unlink()
    elif damage == "truncated part":
        part.write_bytes(part.read_bytes()[:200])
    elif damage == "list":
        index.write_text("[]")
    else:
        index.write_text(json.dumps(json.loads(index.read_text()) | {"sizes": "many"}))
    recomputed, lines = compute_features(net, images, tmp_path)
    assert "again" in lines[0]
    assert torch.equal(recomputed.global_vectors, expected)


def test_features_too_large_for_the_disk_are_refused_before_computation(tmp_path, monkeypatch):
    net, images = make_model(depths=[2, 3]), make_photographs()
    compute_features(net, images, tmp_path)
    folder = tmp_path / "features"
    used_bytes = sum(path.stat().st_size for path in folder.glob("*.npy"))
    header_bytes = 128 * len(list(folder.glob("*.npy")))
    usage = type("Usage", (), {"free": used_bytes - header_bytes - 1})
    monkeypatch.setattr("foveal.training.feature_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"free on its disk: use training\.cache=false"):
        compute_features(net, images, tmp_path / "other")
    usage.free += 1
    compute_features(net, images, tmp_path / "other")


def test_indexing_features_selects_the_features_of_those_images(tmp_path):
    net, images = make_model(depths=[3]), make_photographs()
    features, _ = compute_features(net, images, tmp_path)
    indices = torch.tensor([0, 4, 6, 11])
    torch.testing.assert_close(
        predict_features(net, features[indices]), predict_features(net, features)[indices]
    )
    assert len(features[indices]) == 4


def test_the_linear_layer_separates_separable_classes():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    vectors = torch.randn(60, 2, 8, generator=generator) * 0.3
    vectors[range(60), :, labels] += 2
    train, val = LabelledVectors(vectors, labels), LabelledVectors(vectors[:9], labels[:9])
    linear = fit_linear(train, val, 3)
    assert (linear(vectors[:, 0]).argmax(dim=1) == labels).all()
    assert linear.weight.shape == (8, 3)


def test_a_near_duplicate_is_found_even_if_mirrored(tmp_path):
    torch.manual_seed(0)
    net = PlainNet(EfficientNetLite(weights="imagenet"), inputs=Inputs(mean=(0.5,), std=(0.5,)))
    cut = Cut(5, (5,), True)  # at depth 5; mirrored features are stored too
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear") * 255).byte()
    darker = (images[2:3].flip(-1) * 0.98).byte()
    test = torch.cat([images[5:6], darker])
    sets = [
        ImageSet("p", split, pixels, torch.zeros(len(pixels), dtype=torch.long), ("a",))
        for split, pixels in (("train", images[:5]), ("test", test))
    ]
    train_features, test_features = (
        cached_features(net, cut, image_set, tmp_path / image_set.split) for image_set in sets
    )
    duplicates = near_duplicates(test_features, train_features, ("x", "y"), tuple("01234"))
    assert duplicates == (("y", "2"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of photographs of three shapes in two classes: bright on the left or right."""
    root = tmp_path_factory.mktemp("photos")
    write_halves(root / "train", 12)
    write_halves(root / "test", 4, seed=1)
    return root


def make_recipe(**changes):
    """Return a recipe on cached features; keyword arguments update its sections."""
    values = {
        "name": "cached",
        "model": {
            "name": "attention",
            "backbone": {"name": "efficientnet-lite0", "weights": "imagenet"},
            "depths": [5],
            "compatibility": "pc",
        },
        "data": {"name": "photos", "short_side": 64},
        "training": {"epochs": 2, "batch_size": 8, "freeze_depth": 4, "cache": True},
    }
    for section, entries in changes.items():
        values[section] = values.get(section, {}) | entries
    return parse_recipe(values)


def test_a_run_on_cached_features_saves_a_model_and_deletes_the_features(tmp_path, folder):
    out = train(make_recipe(), tmp_path / "run", data=str(folder), progress=False)
    assert not (out / "features").exists()
    trained = zoo.load(out)
    assert trained.inputs.short_side == 64
    assert trained.inputs.mean == pytest.approx([127 / 255] * 3)
    card = zoo.card(out)
    assert card["backbone_weights"] == "imagenet, shipped with Foveal"
    saved = set(load_file(out / "model.safetensors"))
    assert not any(name.startswith(("backbone.stem", "backbone.stages.0")) for name in saved)
    assert any(name.startswith("backbone.top") for name in saved)
    explanation = trained.explain(torch.rand(1, 3, 64, 96))
    assert explanation.maps.shape == (1, 1, 64, 96)


@pytest.mark.parametrize("kind", ["attention", "plain"])
def test_a_run_with_linear_start_begins_with_the_predictions_of_the_linear_probe(
    tmp_path, folder, kind
):
    options = {"linear_start": True, "lr": 0.0, "epochs": 1, "fixed_norm": True}
    recipe = make_recipe(training=options)
    if kind == "plain":
        backbone = recipe.model["backbone"]
        recipe = replace(recipe, model={"name": "plain", "backbone": backbone})
    out = train(recipe, tmp_path / "run", data=str(folder), progress=False, keep_features=True)
    sets = {
        split: load_images(folder, split, size=ShortSide(64), channels=3)
        for split in ("train", "val", "test")
    }
    linear_probe = probe(recipe, sets, out / "features")
    trained = zoo.load(out)
    predictions = [trained(part.float() / 255).argmax(dim=1) for part in sets["test"].images.parts]
    assert torch.equal(torch.cat(predictions), linear_probe.predictions)
    assert linear_probe.accuracy > 0.5


@pytest.mark.parametrize(
    "model_settings", [{"standardise": True}, {"depths": [4, 5]}, {"normalise": "sigmoid"}]
)
def test_only_a_plain_softmax_attention_can_start_from_the_linear_probe(
    tmp_path, folder, model_settings
):
    recipe = make_recipe(model=model_settings, training={"linear_start": True})
    with pytest.raises(UserError, match=r"model\.depths=\[5\], softmax attention"):
        train(recipe, tmp_path / "run", data=str(folder), progress=False)


def test_a_resumed_run_on_cached_features_equals_an_uninterrupted_one(tmp_path, folder):
    uninterrupted = train(
        make_recipe(), tmp_path / "uninterrupted", data=str(folder), progress=False
    )
    stopped = tmp_path / "stopped"

    class Stop(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_recipe(), stopped, data=str(folder), progress=False, callbacks=[Stop()])
    assert (stopped / "features" / "train" / INDEX).exists()
    train(make_recipe(), stopped, data=str(folder), progress=False, resume=True)
    weights, expected = (load_file(out / "model.safetensors") for out in (stopped, uninterrupted))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training": {"freeze_depth": 0}}, "training.freeze_depth too"),
        ({"augment": {"rotate": 5.0}}, "only augment.flip"),
        ({"data": {"size": [64, 64]}}, "got both"),
        ({"data": {"masks": "masks"}}, "masks need images of one size"),
    ],
)
def test_contradictory_settings_are_an_error(changes, expected):
    with pytest.raises(UserError, match=expected):
        make_recipe(**changes)


def test_features_of_a_model_without_a_backbone_cannot_be_cached(tmp_path, folder):
    recipe = replace(make_recipe(), model={"name": "cnn"})
    with pytest.raises(UserError, match="a model with a backbone"):
        train(recipe, tmp_path / "run", data=str(folder), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_backbone_can_start_from_a_weights_file(tmp_path, folder):
    torch.manual_seed(5)
    backbone = EfficientNetLite()
    file = tmp_path / "own.safetensors"
    save_file(backbone.state_dict(), file)
    recipe = make_recipe(model={"backbone": {"name": "efficientnet-lite0", "weights": str(file)}})
    out = train(recipe, tmp_path / "run", data=str(folder), progress=False)
    card = zoo.card(out)
    assert card["backbone_weights"].startswith("own.safetensors, SHA-256 ")
    assert "own.safetensors" not in (out / "config.json").read_text()
    file.unlink()
    assert zoo.load(out).backbone.stem.conv.weight.equal(backbone.stem.conv.weight)


def test_a_weights_file_of_another_model_is_refused(tmp_path, folder):
    file = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, file)
    recipe = make_recipe(model={"backbone": {"name": "efficientnet-lite0", "weights": str(file)}})
    with pytest.raises(UserError, match="belong to another model"):
        train(recipe, tmp_path / "run", data=str(folder), progress=False)


def test_an_unreachable_hub_falls_back_to_the_shipped_backbone(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("foveal.training.pretrained.backbone_weights", lambda name: "scratch")
    backbone = {"name": "timm", "model": "resnet18", "pretrained": True}
    lines = []
    recipe = make_recipe(model={"backbone": backbone})
    out = train(recipe, tmp_path / "run", data=str(folder), progress=False, notify=lines.append)
    assert [line for line in lines if "Hub cannot be reached" in line and "resnet18" in line]
    assert zoo.card(out)["backbone_weights"] == "imagenet, shipped with Foveal"
    assert zoo.load(out).backbone.settings()["weights"] == "imagenet"
