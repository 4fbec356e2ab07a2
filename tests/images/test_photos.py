"""Photographs: preserved aspect ratios, batches of equal size, and classes by name or id.

A set of photographs is resized to one short side. It is stored as parts, one tensor per size.
"""

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
from foveal.metrics.classes import with_model_classes
from foveal.models import Inputs, SmallCNN

SHORT = ShortSide(32)  # the size of photographs in these tests, given by their short side


def write_photo(path, height, width, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path):
    """Write photographs of several shapes in two classes, and one broken file."""
    shapes = [(40, 60), (60, 40), (50, 50), (40, 61), (64, 200)]
    for label in ("n1", "n2"):
        for index, shape in enumerate(shapes):
            write_photo(
                tmp_path / label / f"{index}.png", *shape, seed=index + (label == "n2") * 100
            )
    (tmp_path / "n2" / "broken.png").write_bytes(b"not an image")
    return tmp_path


def small_cnn(**inputs):
    """Return a small model of two classes, which is the same for every call."""
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
def test_resizing_to_a_short_side_preserves_the_aspect_ratio(size, expected):
    assert ShortSide(224).of(size) == expected


def test_photo_is_resized_like_pillows_bicubic(tmp_path):
    write_photo(tmp_path / "a.png", 50, 70)
    resized = read_image(tmp_path / "a.png", size=SHORT)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC))
    assert tuple(resized.shape) == (3, 32, 32)
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), expected)


def test_photos_are_read_with_their_labels_in_order_of_size(folder):
    problems = []
    for split in ("train", "val", "test"):
        dataset = load_images(folder, split, size=SHORT)
        assert isinstance(dataset.images, Photos)
        assert len(dataset) == len(dataset.images) == len(dataset.paths)
        images = [image for batch in dataset.images.split(2) for image in batch]
        for image, label, path in zip(images, dataset.labels.tolist(), dataset.paths, strict=True):
            assert torch.equal(image, read_image(path, size=SHORT))
            assert f"/{dataset.classes[label]}/" in path
        problems += [problem.path.rpartition("/")[2] for problem in dataset.problems]
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
    selection = photos[torch.tensor([0, 4])]
    assert [len(part) for part in selection.parts] == [1, 1]
    assert len(photos[torch.tensor([3, 4])].parts) == 1
    for indices in ([4, 0], [1, 1]):
        with pytest.raises(ValueError, match="ascending"):
            photos[torch.tensor(indices)]


def test_batches_of_large_photos_are_limited_in_pixels():
    side = 1024
    photos = Photos((torch.zeros(9, 1, side, side).byte(),))
    assert [len(batch) for batch in photos.split(500)] == [4, 4, 1]
    assert 4 * side * side == PIXELS


def test_model_is_evaluated_on_photos_of_mixed_aspect_ratios(folder):
    model = small_cnn(classes=("n1", "n2"))
    dataset = load_images(folder, "train", size=SHORT)
    figures = evaluate(model, dataset)
    correct = [
        int(model(read_image(path, size=SHORT)[None] / 255).argmax()) == int(label)
        for path, label in zip(dataset.paths, dataset.labels, strict=True)
    ]
    assert figures["accuracy"] == sum(correct) / len(correct)
    assert figures["input_size"] == list(dataset.images.shape[2:])


def test_predict_preserves_aspect_ratios(folder, tmp_path_factory, run):
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
    assert sum(row["error"] is not None for row in rows) == 1  # the broken file


def test_classes_are_matched_by_id_if_the_folders_are_named_by_id(folder):
    model = small_cnn(classes=("cat", "dog"), ids=("n2", "n1"))
    dataset = load_images(folder, "train", size=SHORT)
    matched, _ = with_model_classes(dataset, model)
    assert matched.classes == ("cat", "dog")
    assert torch.equal(matched.labels, 1 - dataset.labels)  # n1 is the second id of the model


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": ("a",), "classes": ("x", "y")}, "Expected 2 values in inputs.ids"),
        ({"short_side": 224, "size": (224, 224)}, "but got both"),
        ({"short_side": 8}, "Expected inputs.short_side from 32"),
    ],
)
def test_wrong_inputs_are_rejected(inputs, message):
    with pytest.raises(UserError, match=message):
        Inputs(**inputs)


def test_missing_photo_dataset_error_describes_it(tmp_path):
    with pytest.raises(UserError, match=r"clothing \(3,781 photographs of garments.*FOVEAL_DATA"):
        load_images("clothing", "test", size=SHORT, data_dir=tmp_path)


def test_dataset_for_testing_only_has_no_training_images(tmp_path):
    for label in ("n1", "n2"):
        for index in range(2):
            path = tmp_path / "photos/imagenet-val-1000" / label / f"{index}.png"
            write_photo(path, 40, 40, seed=index + (label == "n2") * 10)
    dataset = load_images("imagenet-val-1000", "test", size=SHORT, data_dir=tmp_path)
    assert len(dataset) == 4
    with pytest.raises(UserError, match="for testing only"):
        load_images("imagenet-val-1000", "train", size=SHORT, data_dir=tmp_path)


@pytest.mark.parametrize("data", ["mnist-5k", "megapixel-mnist", "hf:a/b", "nowhere"])
def test_short_side_requires_a_folder_of_photos(data):
    with pytest.raises(
        UserError, match="Expected a folder of image files for sizes given by the short side"
    ):
        load_images(data, "test", size=SHORT)
