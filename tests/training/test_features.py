"""Frozen backbones: cut at a depth, their features kept on disk, what follows trained on them."""

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
from foveal.training.features import Cut, FeatureBatches, cut_of, logits_of, predicted
from foveal.training.first_hour.probe import near_duplicates, probe
from foveal.training.linear import Labelled, fit_linear
from photo_folders import halves

STAGES = [[4], [6], [8]]


def model(**options):
    torch.manual_seed(0)
    inputs = Inputs(short_side=32, mean=(0.4,), std=(0.2,))
    net = AttentionNet(VGGBackbone(3, STAGES), num_classes=3, inputs=inputs, **options)
    net.backbone.freeze(2)
    return net.eval()


def photographs():
    generator = torch.Generator().manual_seed(0)
    sizes = ((32, 64, 5), (64, 32, 3), (32, 32, 4))
    parts = [torch.randint(256, (n, 3, h, w), generator=generator).byte() for h, w, n in sizes]
    labels = torch.arange(12) % 3
    paths = tuple(f"{index}.png" for index in range(12))
    return ImageSet("photos", "train", Photos(tuple(parts)), labels, ("a", "b", "c"), paths)


def kept(net, images, folder, **options):
    said = []
    cut = cut_of(net, 2, options.get("mirrored", True))
    return cached_features(net, cut, images, folder / "features", say=said.append), said


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_backbone_cut_at_any_depth_gives_what_it_gives_whole(depth):
    torch.manual_seed(0)
    backbone = EfficientNetLite().eval()
    images = torch.rand(2, 3, 45, 70)
    with torch.no_grad():
        local, whole = backbone(images)
        begun = backbone.begin(images, depth)
        features, vector = backbone.finish(begun[-1], depth)
    assert torch.equal(vector, whole)
    assert len(begun) == depth
    for number, values in enumerate(local, start=1):
        theirs = begun[number - 1] if number <= depth else features[number]
        assert torch.equal(theirs, values)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_what_is_frozen_to_a_depth_does_not_learn_and_normalises_as_in_use(depth):
    torch.manual_seed(0)
    backbone = EfficientNetLite().train()
    backbone.freeze(depth)
    before = {name: values.clone() for name, values in backbone.state_dict().items()}
    trained = [p for p in backbone.parameters() if p.requires_grad]
    _, whole = backbone(torch.rand(2, 3, 64, 64))
    if trained:
        whole.sum().backward()
        torch.optim.SGD(trained, lr=1.0).step()
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
    assert len(changed) >= 0.5 * (len(before) - len(frozen))


@pytest.mark.parametrize("depth", [0, 4, -1])
def test_a_depth_that_there_is_not_is_one_sentence(depth):
    with pytest.raises(UserError, match="1 to 3, but got"):
        VGGBackbone(3, STAGES).freeze(depth)


def test_a_backbone_that_is_no_chain_is_frozen_whole_or_not_at_all():
    backbone = TimmBackbone("test_resnet")
    with pytest.raises(UserError, match="but got 1"):
        backbone.freeze(1)
    backbone.freeze(len(backbone.widths))
    assert not any(p.requires_grad for p in backbone.parameters())
    images = torch.rand(1, 3, 64, 64)
    local, whole = backbone(images)
    _, vector = backbone.finish(backbone.begin(images, len(local))[-1], len(local))
    assert torch.equal(vector, whole)


def test_a_batch_of_photographs_has_one_size_and_an_epoch_sees_each_once():
    images = photographs()
    order = torch.arange(12)
    batches = Batches(images.images, order, 2, seed=1)
    seen = [(tuple(pixels.shape[-2:]), labels.tolist()) for pixels, labels in batches]
    assert len(seen) == len(batches) == 3 + 2 + 2
    assert sorted(i for _, labels in seen for i in labels) == list(range(12))
    for size, labels in seen:
        assert len(labels) <= 2
        for index in labels:
            expected = (32, 64) if index < 5 else (64, 32) if index < 8 else (32, 32)
            assert size == expected
    assert [size for size, _ in seen] != sorted(size for size, _ in seen)


@pytest.mark.parametrize("depths", [[3], [2, 3], [1, 3]])
def test_the_logits_from_kept_features_are_those_from_the_images(tmp_path, depths):
    net, images = model(depths=depths), photographs()
    features, _ = kept(net, images, tmp_path)
    with torch.no_grad():
        expected = torch.cat([net(part.float() / 255) for part in images.images.parts])
    torch.testing.assert_close(predicted(net, features), expected, atol=5e-3, rtol=1e-2)


def test_every_other_epoch_an_image_is_mirrored(tmp_path):
    net, images = model(depths=[3]), photographs()
    features, _ = kept(net, images, tmp_path)
    mirrored = [net(part.flip(-1).float() / 255) for part in images.images.parts]
    plain = [net(part.float() / 255) for part in images.images.parts]
    expected = [torch.cat(plain).detach(), torch.cat(mirrored).detach()]
    epoch = 0
    batches = FeatureBatches(features, torch.arange(12), 5, seed=0, epoch=lambda: epoch)
    seen = torch.zeros(2, 12, dtype=torch.long)
    for number in range(2):
        epoch = number
        for values, indices in batches:
            with torch.no_grad():
                logits = logits_of(net, values, 2)
            distance = torch.stack([(logits - e[indices]).abs().amax(dim=1) for e in expected])
            seen[number, indices] = distance.argmin(dim=0)
    assert torch.equal(seen[0], 1 - seen[1])
    assert set(seen[0].tolist()) == {0, 1}


def test_features_are_computed_once_and_anew_for_other_images_weights_or_settings(tmp_path):
    net, images = model(depths=[3]), photographs()
    first, said = kept(net, images, tmp_path)
    stamp = (tmp_path / "features" / INDEX).stat().st_mtime_ns
    again, said = kept(net, images, tmp_path)
    assert not said
    assert (tmp_path / "features" / INDEX).stat().st_mtime_ns == stamp
    assert torch.equal(first.whole, again.whole)
    changed = photographs()
    changed.images.parts[0][0, 0, 0, 0] += 1
    for other, its_images, options in (
        (net, changed, {}),
        (model(depths=[2, 3]), images, {}),
        (net, images, {"mirrored": False}),
    ):
        _, said = kept(other, its_images, tmp_path, **options)
        assert "computed again" in said[0]
    with torch.no_grad():
        net.backbone.blocks[0][0].conv.weight.mul_(2)
    _, said = kept(net, images, tmp_path)
    assert "other images or settings" in said[0]


@pytest.mark.parametrize("damage", ["index", "part", "cut", "list", "junk"])
def test_features_that_are_half_written_or_damaged_are_computed_anew(tmp_path, damage):
    net, images = model(depths=[3]), photographs()
    first, _ = kept(net, images, tmp_path)
    expected = first.whole.clone()
    folder = tmp_path / "features"
    index = folder / INDEX
    part = folder / "part-1-depth-2.npy"
    if damage == "index":
        index.unlink()
    elif damage == "part":
        part.unlink()
    elif damage == "cut":
        part.write_bytes(part.read_bytes()[:200])
    elif damage == "list":
        index.write_text("[]")
    else:
        index.write_text(json.dumps(json.loads(index.read_text()) | {"sizes": "many"}))
    again, said = kept(net, images, tmp_path)
    assert "again" in said[0]
    assert torch.equal(again.whole, expected)


def test_features_that_the_disk_has_no_room_for_are_refused_before(tmp_path, monkeypatch):
    net, images = model(depths=[2, 3]), photographs()
    kept(net, images, tmp_path)
    folder = tmp_path / "features"
    taken = sum(path.stat().st_size for path in folder.glob("*.npy"))
    headers = 128 * len(list(folder.glob("*.npy")))
    usage = type("Usage", (), {"free": taken - headers - 1})
    monkeypatch.setattr("foveal.training.feature_files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"free on its disk: use training\.cache=false"):
        kept(net, images, tmp_path / "other")
    usage.free += 1
    kept(net, images, tmp_path / "other")


def test_some_of_the_features_are_those_of_these_images(tmp_path):
    net, images = model(depths=[3]), photographs()
    features, _ = kept(net, images, tmp_path)
    chosen = torch.tensor([0, 4, 6, 11])
    torch.testing.assert_close(predicted(net, features[chosen]), predicted(net, features)[chosen])
    assert len(features[chosen]) == 4


def test_the_linear_layer_separates_what_is_separable_and_validation_chooses_its_decay():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    vectors = torch.randn(60, 2, 8, generator=generator) * 0.3
    vectors[range(60), :, labels] += 2
    linear = fit_linear(Labelled(vectors, labels), Labelled(vectors[:9], labels[:9]), 3)
    assert (linear(vectors[:, 0]).argmax(dim=1) == labels).all()
    assert linear.weight.shape == (8, 3)


def test_a_test_image_that_is_nearly_a_training_image_is_found_mirrored_too(tmp_path):
    torch.manual_seed(0)
    net = PlainNet(EfficientNetLite(weights="imagenet"), inputs=Inputs(mean=(0.5,), std=(0.5,)))
    cut = Cut(5, (5,), True)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, (64, 64), mode="bilinear") * 255).byte()
    darker = (images[2:3].flip(-1) * 0.98).byte()
    test = torch.cat([images[5:6], darker])
    sets = [
        ImageSet("p", split, pixels, torch.zeros(len(pixels), dtype=torch.long), ("a",))
        for split, pixels in (("train", images[:5]), ("test", test))
    ]
    train_set, test_set = (cached_features(net, cut, one, tmp_path / one.split) for one in sets)
    found = near_duplicates(test_set, train_set, ("x", "y"), tuple("01234"))
    assert found == (("y", "2"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs of three shapes in two classes: bright left or right."""
    place = tmp_path_factory.mktemp("photos")
    halves(place / "train", 12)
    halves(place / "test", 4, seed=1)
    return place


def recipe(**changes):
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
    for section, more in changes.items():
        values[section] = values.get(section, {}) | more
    return parse_recipe(values)


def test_a_run_on_kept_features_leaves_a_model_of_photographs_and_no_features(tmp_path, folder):
    out = train(recipe(), tmp_path / "run", data=str(folder), progress=False)
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
def test_a_run_may_start_as_the_linear_layer_on_the_frozen_features(tmp_path, folder, kind):
    started = {"linear_start": True, "lr": 0.0, "epochs": 1, "fixed_norm": True}
    chosen = recipe(training=started)
    if kind == "plain":
        backbone = chosen.model["backbone"]
        chosen = replace(chosen, model={"name": "plain", "backbone": backbone})
    out = train(chosen, tmp_path / "run", data=str(folder), progress=False, keep_features=True)
    sets = {
        split: load_images(folder, split, size=ShortSide(64), channels=3)
        for split in ("train", "val", "test")
    }
    found = probe(chosen, sets, out / "features")
    trained = zoo.load(out)
    answers = [trained(part.float() / 255).argmax(dim=1) for part in sets["test"].images.parts]
    assert torch.equal(torch.cat(answers), found.answers)
    assert found.accuracy > 0.5


@pytest.mark.parametrize(
    "model", [{"standardise": True}, {"depths": [4, 5]}, {"normalise": "sigmoid"}]
)
def test_attention_that_is_no_mean_cannot_start_as_a_linear_layer(tmp_path, folder, model):
    chosen = recipe(model=model, training={"linear_start": True})
    with pytest.raises(UserError, match=r"model\.depths=\[5\], softmax attention"):
        train(chosen, tmp_path / "run", data=str(folder), progress=False)


def test_a_resumed_run_on_kept_features_ends_as_one_that_never_stopped(tmp_path, folder):
    whole = train(recipe(), tmp_path / "whole", data=str(folder), progress=False)
    stopped = tmp_path / "stopped"

    class Stop(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe(), stopped, data=str(folder), progress=False, callbacks=[Stop()])
    assert (stopped / "features" / "train" / INDEX).exists()
    train(recipe(), stopped, data=str(folder), progress=False, resume=True)
    ours, theirs = (load_file(out / "model.safetensors") for out in (stopped, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"training": {"freeze_depth": 0}}, "training.freeze_depth too"),
        ({"augment": {"rotate": 5.0}}, "augment.flip alone"),
        ({"data": {"size": [64, 64]}}, "got both"),
        ({"data": {"masks": "masks"}}, "masks need images of one size"),
    ],
)
def test_settings_that_contradict_each_other_are_one_sentence(changes, expected):
    with pytest.raises(UserError, match=expected):
        recipe(**changes)


def test_features_of_a_model_without_a_backbone_cannot_be_kept(tmp_path, folder):
    chosen = replace(recipe(), model={"name": "cnn"})
    with pytest.raises(UserError, match="a model with a backbone"):
        train(chosen, tmp_path / "run", data=str(folder), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_backbone_starts_from_a_file_of_ones_own(tmp_path, folder):
    torch.manual_seed(5)
    theirs = EfficientNetLite()
    file = tmp_path / "own.safetensors"
    save_file(theirs.state_dict(), file)
    chosen = recipe(model={"backbone": {"name": "efficientnet-lite0", "weights": str(file)}})
    out = train(chosen, tmp_path / "run", data=str(folder), progress=False)
    card = zoo.card(out)
    assert card["backbone_weights"].startswith("own.safetensors, SHA-256 ")
    assert "own.safetensors" not in (out / "config.json").read_text()
    file.unlink()
    assert zoo.load(out).backbone.stem.conv.weight.equal(theirs.stem.conv.weight)


def test_a_file_of_another_models_weights_is_refused_in_one_sentence(tmp_path, folder):
    file = tmp_path / "other.safetensors"
    save_file({"conv.weight": torch.zeros(3)}, file)
    chosen = recipe(model={"backbone": {"name": "efficientnet-lite0", "weights": str(file)}})
    with pytest.raises(UserError, match="belong to another model"):
        train(chosen, tmp_path / "run", data=str(folder), progress=False)


def test_a_hub_that_cannot_be_reached_leaves_the_shipped_backbone(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("foveal.training.pretrained.backbone_weights", lambda name: "scratch")
    backbone = {"name": "timm", "model": "resnet18", "pretrained": True}
    said = []
    chosen = recipe(model={"backbone": backbone})
    out = train(chosen, tmp_path / "run", data=str(folder), progress=False, say=said.append)
    assert [line for line in said if "Hub cannot be reached" in line and "resnet18" in line]
    assert zoo.card(out)["backbone_weights"] == "imagenet, shipped with Foveal"
    assert zoo.load(out).backbone.settings()["weights"] == "imagenet"
