"""Photographs: proportions kept, read in few sizes, matched by name or id."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from foveal.datasets import load_images, read_image
from foveal.foundation.errors import UserError
from foveal.images.photos import PIXELS, Photos
from foveal.images.sizing import ShortSide
from foveal.metrics import evaluate
from foveal.metrics.classes import as_known
from foveal.models import Inputs, SmallCNN

SHORT = ShortSide(32)


def photo(path, height, width, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of photographs of four shapes, and one file that is broken."""
    shapes = [(40, 60), (60, 40), (50, 50), (40, 61), (64, 200)]
    for label in ("n1", "n2"):
        for number, shape in enumerate(shapes):
            photo(tmp_path / label / f"{number}.png", *shape, seed=number + (label == "n2") * 100)
    (tmp_path / "n2" / "broken.png").write_bytes(b"no image")
    return tmp_path


def small_cnn(**inputs):
    torch.manual_seed(0)
    return SmallCNN(3, 2, widths=[4, 4], inputs=Inputs(short_side=32, **inputs)).eval()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1200, 1600), (224, 288)),
        ((1600, 1200), (288, 224)),
        ((224, 224), (224, 224)),
        ((1, 1), (224, 224)),
        ((1, 3000), (224, 896)),
        ((3000, 1), (896, 224)),
    ],
)
def test_the_short_side_is_as_wanted_and_the_long_one_in_proportion(size, expected):
    assert ShortSide(224).of(size) == expected


def test_a_photo_is_resized_as_pillow_does_bicubically(tmp_path):
    photo(tmp_path / "a.png", 50, 70)
    found = read_image(tmp_path / "a.png", size=SHORT)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
    assert tuple(found.shape) == (3, 32, 32)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


def test_a_folder_is_read_in_the_order_of_sizes_with_its_labels(folder):
    problems = []
    for split in ("train", "val", "test"):
        found = load_images(folder, split, size=SHORT)
        assert isinstance(found.images, Photos)
        assert len(found) == len(found.images) == len(found.paths)
        images = [image for batch in found.images.split(2) for image in batch]
        for image, label, path in zip(images, found.labels.tolist(), found.paths, strict=True):
            assert torch.equal(image, read_image(path, size=SHORT))
            assert f"/{found.classes[label]}/" in path
        problems += [problem.path.rpartition("/")[2] for problem in found.problems]
    assert problems == ["broken.png"]
    train = load_images(folder, "train", size=SHORT)
    assert {tuple(part.shape[2:]) for part in train.images.parts} > {(32, 32), (32, 96)}


def test_photos_are_indexed_and_split_like_a_tensor():
    photos = Photos((torch.zeros(3, 1, 2, 2).byte(), torch.ones(2, 1, 2, 4).byte()))
    assert (len(photos), photos.shape) == (5, (5, 1, 2, 2))
    assert [tuple(batch.shape) for batch in photos.split(2)] == [
        (2, 1, 2, 2),
        (1, 1, 2, 2),
        (2, 1, 2, 4),
    ]
    some = photos[torch.tensor([0, 4])]
    assert [len(part) for part in some.parts] == [1, 1]
    assert len(photos[torch.tensor([3, 4])].parts) == 1
    for indices in ([4, 0], [1, 1]):
        with pytest.raises(ValueError, match="ascending"):
            photos[torch.tensor(indices)]


def test_a_batch_of_large_photos_is_small():
    side = 1024
    photos = Photos((torch.zeros(9, 1, side, side).byte(),))
    assert [len(batch) for batch in photos.split(500)] == [4, 4, 1]
    assert 4 * side * side == PIXELS


def test_a_model_is_evaluated_on_photos_of_all_proportions(folder):
    model = small_cnn(classes=("n1", "n2"))
    test = load_images(folder, "train", size=SHORT)
    figures = evaluate(model, test)
    right = [
        int(model(read_image(path, size=SHORT)[None] / 255).argmax()) == int(label)
        for path, label in zip(test.paths, test.labels, strict=True)
    ]
    assert figures["accuracy"] == sum(right) / len(right)
    assert figures["input_size"] == list(test.images.shape[2:])


def test_predict_keeps_the_proportions(folder, tmp_path_factory, run):
    out = tmp_path_factory.mktemp("out")
    small_cnn(classes=("n1", "n2")).save_pretrained(out / "model")
    assert run("predict", out / "model", folder, "--out", out / "rows.parquet").returncode == 0
    rows = pq.read_table(out / "rows.parquet").to_pylist()
    model = small_cnn(classes=("n1", "n2"))
    for row in rows:
        if row["error"] is None:
            image = read_image(row["path"], size=SHORT)[None] / 255
            probability = model(image).softmax(1).max().item()
            assert row["probability"] == pytest.approx(probability, abs=1e-5)
    assert sum(row["error"] is not None for row in rows) == 1


def test_classes_are_matched_by_id_where_the_data_are_named_so(folder):
    model = small_cnn(classes=("cat", "dog"), ids=("n2", "n1"))
    test = load_images(folder, "train", size=SHORT)
    found, _ = as_known(test, model)
    assert found.classes == ("cat", "dog")
    assert torch.equal(found.labels, 1 - test.labels)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": ("a",), "classes": ("x", "y")}, "Expected 2 values in inputs.ids"),
        ({"short_side": 224, "size": (224, 224)}, "but got both"),
        ({"short_side": 8}, "Expected inputs.short_side from 32"),
    ],
)
def test_wrong_inputs_are_refused(inputs, message):
    with pytest.raises(UserError, match=message):
        Inputs(**inputs)


def test_a_named_set_of_photos_says_what_it_is_where_it_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"clothing \(3,781 photographs of garments.*FOVEAL_DATA"):
        load_images("clothing", "test", size=SHORT, data_dir=tmp_path)


def test_a_set_for_testing_is_tested_whole_and_trains_nothing(tmp_path):
    for label in ("n1", "n2"):
        for number in range(2):
            path = tmp_path / "photos/imagenet-val-1000" / label / f"{number}.png"
            photo(path, 40, 40, seed=number + (label == "n2") * 10)
    found = load_images("imagenet-val-1000", "test", size=SHORT, data_dir=tmp_path)
    assert len(found) == 4
    with pytest.raises(UserError, match="for testing only"):
        load_images("imagenet-val-1000", "train", size=SHORT, data_dir=tmp_path)


@pytest.mark.parametrize("data", ["mnist-5k", "megapixel-mnist", "hf:a/b", "nowhere"])
def test_what_is_no_folder_of_photos_is_said(data):
    with pytest.raises(
        UserError, match="Expected a folder of image files for sizes given by the short side"
    ):
        load_images(data, "test", size=SHORT)
