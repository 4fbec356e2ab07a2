"""Matching of classes by name between labelled images and models."""

import io
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from foveal.datasets import ImageSet, load_images
from foveal.deployment import onnx
from foveal.deployment.onnx import onnx_graph, write_onnx
from foveal.evaluation.compare import compare
from foveal.evaluation.evaluate import evaluate_on
from foveal.evaluation.report.compare_page import write_comparison
from foveal.explanation import Explanation
from foveal.foundation.errors import UserError
from foveal.metrics import adversarial_accuracy, evaluate
from foveal.metrics.classes import Classes, absent_classes, match_classes, with_model_classes
from foveal.metrics.judged import judged
from foveal.models import SmallCNN
from foveal.models.image_model import ImageModel
from foveal.models.inputs import Inputs

LEVELS = {"dark": 40, "middle": 120, "bright": 200}  # grey levels from 0 to 255


class Brightness(ImageModel):
    """Predicts the class with the nearest grey level, so that its accuracy can be counted."""

    name = "brightness"

    def __init__(self, classes=tuple(LEVELS), with_names=True):
        super().__init__(
            1, len(classes), Inputs(size=(8, 8), classes=classes if with_names else ())
        )
        self.weight = torch.nn.Parameter(torch.tensor([LEVELS[c] / 255 for c in classes]))

    def observe(self, view):
        images = view.whole()
        return Explanation(images, -(images.mean(dim=(1, 2, 3))[:, None] - self.weight).square())


def images_of(*pairs, classes):
    """Return an image for each pair of a class name and a grey level."""
    pixels = torch.stack([torch.full((1, 8, 8), level, dtype=torch.uint8) for _, level in pairs])
    labels = torch.tensor([classes.index(name) for name, _ in pairs])
    return ImageSet("greys", "test", pixels, labels, tuple(classes))


def write_images(folder, name, levels):
    """Write an image for each level, all of them different files."""
    (folder / name).mkdir(parents=True)
    for index, level in enumerate(levels):
        comment = PngInfo()
        comment.add_text("Comment", f"{folder.name} {name} {index}")
        Image.new("L", (8, 8), level).save(folder / name / f"{index}.png", pnginfo=comment)


@pytest.fixture
def brightness(monkeypatch):
    """Return a function that runs `evaluate_on` on this model and returns figures and messages."""

    def run(data, model=None, **options):
        messages = []
        monkeypatch.setattr(onnx, "load", lambda *_: model or Brightness())
        figures = evaluate_on("brightness", str(data), notify=messages.append, **options)
        return figures, "\n".join(messages)

    return run


ANIMALS = Classes("net", ("cat", "dog", "fox"), 3)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "dog", "fox"), (0, 1, 2)),
        (("fox", "cat", "dog"), (2, 0, 1)),
        (("dog",), (1,)),
        (("dog", "zebra"), (1, None)),
        (("ant", "bee", "fox", "owl"), (None, None, 2, None)),
    ],
)
def test_classes_are_matched_by_name(names, expected):
    assert match_classes(ANIMALS, "animals", names) == expected


def test_composed_and_decomposed_unicode_names_match():
    forms = [unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD")]
    assert match_classes(Classes("net", ("x", forms[0]), 2), "d", [forms[1], "y"]) == (1, None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one", "two", "three"), r"Expected animals to contain classes of net \(cat, dog, fox\)"),
        (("Cat", "dog", "fox"), "net has the class 'cat', and animals has 'Cat'"),
        (("cat", "dogs", "fox"), "'dog', and animals has 'dogs'"),
    ],
)
def test_mismatch_error_names_the_classes_of_model_and_images(names, message):
    with pytest.raises(UserError, match=message):
        match_classes(ANIMALS, "animals", names)


def test_classes_without_names_are_matched_by_index_if_there_are_as_many():
    nameless = Classes("net", (), 2)
    assert match_classes(nameless, "animals", ("cat", "dog")) == (0, 1)
    with pytest.raises(UserError, match="2 classes without names, but animals has 3"):
        match_classes(nameless, "animals", ("cat", "dog", "fox"))
    assert match_classes(ANIMALS, "shards", ("0", "1"), named=False) == (0, 1)
    with pytest.raises(UserError, match="to contain classes of"):
        match_classes(ANIMALS, "folder", ("0", "1"))


def test_duplicate_class_names_are_rejected_unless_both_lists_are_equal():
    cranes = Classes("net", ("crane", "crane", "owl"), 3)
    assert match_classes(cranes, "birds", cranes.names) == (0, 1, 2)
    with pytest.raises(UserError, match="several classes named 'crane'"):
        match_classes(cranes, "birds", ("crane", "owl"))


def test_images_of_unknown_classes_are_dropped_with_labels_and_paths():
    images = images_of(
        ("zebra", 1), ("bright", 2), ("dark", 3), classes=("zebra", "bright", "dark")
    )
    images = ImageSet(**{**vars(images), "paths": ("z", "b", "d")})
    relabelled, notes = with_model_classes(images, Brightness(), "net")
    assert (relabelled.labels.tolist(), relabelled.paths) == ([2, 0], ("b", "d"))
    assert relabelled.images[:, 0, 0, 0].tolist() == [2, 3]
    assert relabelled.classes == tuple(LEVELS)
    assert notes == ["skipped 1 images of classes that net does not have: zebra"]
    assert absent_classes(relabelled) == ("middle",)
    with pytest.raises(UserError, match="Expected images of classes of net"):
        with_model_classes(images_of(("zebra", 1), classes=("zebra", "dark")), Brightness(), "net")


class IndexImages:
    """Large images of one pixel, whose value is the index of the image."""

    size = (1, 1)

    def __len__(self):
        return 4

    def thumbnails(self, numbers, shrink):
        return numbers.float().reshape(-1, 1, 1, 1)

    def crops(self, numbers, corners_px, side, shrink=1):
        return numbers.float().reshape(-1, 1, 1, 1, 1)


def test_large_images_are_relabelled_in_every_task():
    labels = {
        "class": torch.tensor([0, 1, 2, 1]),
        "any": torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [1, 1, 0]]).bool(),
    }
    classes = ("zebra", "bright", "dark")
    images = ImageSet(
        "l", "test", IndexImages(), labels["class"], classes, tuple("abcd"), tasks=labels
    )
    relabelled, _ = with_model_classes(images.of(("any",)), Brightness())
    assert relabelled.tasks["any"].tolist() == [[True, False, True], [True, False, False]]
    relabelled, _ = with_model_classes(images, Brightness())
    assert relabelled.paths == ("b", "c")  # 0 and 3 are labelled zebra in a task
    assert relabelled.labels.tolist() == relabelled.tasks["class"].tolist() == [2, 0]
    assert relabelled.images.thumbnails(torch.tensor([1, 0]), 1).flatten().tolist() == [2, 1]
    assert relabelled.images.crops(torch.tensor([1]), torch.zeros(1, 1, 2), 1).item() == 2
    assert len(relabelled.images) == 2


def test_accuracy_on_some_classes_considers_all_classes_of_the_model(tmp_path, brightness):
    # Four of the ten images labelled dark are nearest to middle: they would be correct only if
    # dark and bright alone were compared. All ten images labelled bright are correct.
    write_images(tmp_path / "test", "dark", [40] * 6 + [110] * 4)
    write_images(tmp_path / "test", "bright", [200] * 10)
    figures, messages = brightness(tmp_path)
    assert figures["images"] == 20
    assert figures["accuracy"] == 16 / 20
    assert "classes: bright, dark; splits: test in test" in messages
    assert "no images of middle" in messages


def test_images_of_unknown_classes_do_not_count(tmp_path, brightness):
    write_images(tmp_path / "test", "dark", [40] * 5)
    write_images(tmp_path / "test", "zebra", [200] * 9)
    figures, messages = brightness(tmp_path)
    assert (figures["images"], figures["accuracy"]) == (5, 1.0)
    assert "skipped 9 images of classes that brightness does not have: zebra" in messages


@pytest.mark.parametrize("names", [("Dark", "bright"), ("left", "right")])
def test_class_names_that_do_not_match_are_an_error(tmp_path, brightness, names):
    for name in names:
        write_images(tmp_path / "test", name, [40] * 3)
    with pytest.raises(UserError, match=f"{names[0]}.*"):
        brightness(tmp_path)


def test_model_without_class_names_is_matched_by_index_with_a_message(tmp_path, brightness):
    for name in LEVELS:
        write_images(tmp_path / "test", name, [LEVELS[name]] * 3)
    in_order = Brightness(tuple(sorted(LEVELS)), with_names=False)
    figures, messages = brightness(tmp_path, in_order)
    assert figures["accuracy"] == 1
    assert "brightness has no class names: classes are matched by index" in messages


def write_shard(path: Path, order, names=None):
    """Write a shard with two images of each class, whose labels are indices in this order."""
    rows = []
    for name in [*order, *order]:
        file = io.BytesIO()
        Image.new("L", (8, 8), LEVELS[name]).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue(), "path": None}, "label": order.index(name)})
    table = pa.Table.from_pylist(rows)
    if names:
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


@pytest.mark.parametrize("order", [("bright", "dark", "middle"), ("middle", "dark"), tuple(LEVELS)])
def test_shards_with_names_in_any_order_are_matched_by_name(tmp_path, brightness, order):
    write_shard(tmp_path / "test-0.parquet", order, order)
    figures, _ = brightness(tmp_path)
    assert (figures["accuracy"], figures["images"]) == (1.0, 2 * len(order))


def test_shards_without_class_names_are_matched_by_index_with_a_message(tmp_path, brightness):
    write_shard(tmp_path / "test-0.parquet", tuple(LEVELS))
    figures, messages = brightness(tmp_path)
    assert figures["accuracy"] == 1
    assert f"{tmp_path.name} has no class names: classes are matched by index" in messages


def test_shards_with_different_class_names_are_an_error(tmp_path):
    write_shard(tmp_path / "train-0.parquet", tuple(LEVELS), tuple(LEVELS))
    write_shard(tmp_path / "test-0.parquet", tuple(LEVELS), ("bright", "dark", "middle"))
    with pytest.raises(UserError, match=r"test-0\.parquet has bright, dark"):
        load_images(tmp_path, "test")


def test_predictions_in_a_folder_of_images_are_not_shards(tmp_path):
    for name in LEVELS:
        write_images(tmp_path, name, [LEVELS[name]] * 5)
    pq.write_table(pa.table({"path": ["a.png"], "prediction": ["dark"]}), tmp_path / "rows.parquet")
    assert load_images(tmp_path, "train").classes == ("bright", "dark", "middle")


def test_evaluate_and_attacks_map_labels_to_the_classes_of_the_model():
    images = images_of(("bright", 200), ("dark", 40), classes=("bright", "dark"))
    assert evaluate(Brightness(), images)["accuracy"] == 1
    relabelled, _ = with_model_classes(images, Brightness())
    assert adversarial_accuracy(Brightness(), relabelled, epsilon=1 / 255, steps=1) == 1


def test_judge_may_order_the_classes_differently():
    classes = tuple(LEVELS)
    images = images_of(("bright", 200), ("dark", 40), ("middle", 120), classes=classes)
    evidence = torch.ones(3, 8, 8, dtype=torch.bool)
    predictions = torch.tensor([2, 0, 0])  # the last is wrong
    for order in (classes, ("bright", "dark", "middle")):
        scores = judged(Brightness(order), images, evidence, predictions)
        assert scores.sufficiency == 1
        assert scores.sufficiency_agreement == pytest.approx(2 / 3)
    with pytest.raises(UserError, match=r"judge .* does not have the classes middle"):
        judged(Brightness(("bright", "dark")), images, evidence, predictions)


def test_exported_model_is_matched_by_name(tmp_path):
    model = SmallCNN(1, 3, widths=(4, 4), inputs=Inputs(size=(8, 8), classes=tuple(LEVELS))).eval()
    model.save_pretrained(tmp_path / "net")
    write_onnx(onnx_graph(model), tmp_path / "net.onnx", {})
    for name in ("bright", "middle", "owl"):
        write_images(tmp_path / "data" / "test", name, range(0, 120, 12)[:8])
    figures = [
        evaluate_on(str(tmp_path / name), str(tmp_path / "data"), notify=lambda line: None)
        for name in ("net", "net.onnx")
    ]
    assert figures[0]["accuracy"] == figures[1]["accuracy"]
    assert figures[0]["images"] == figures[1]["images"] == 16


@pytest.fixture
def nets(tmp_path):
    torch.manual_seed(0)
    for name, classes in (
        ("two", ("dark", "bright")),
        ("three", ("bright", "middle", "dark")),
        ("others", ("left", "right")),
    ):
        inputs = Inputs(size=(8, 8), classes=classes)
        SmallCNN(1, len(classes), widths=(4, 4), inputs=inputs).save_pretrained(tmp_path / name)
    for name in LEVELS:
        for split in ("train", "test"):
            write_images(tmp_path / "data" / split, name, range(len(split), 250, 30))
    return tmp_path


def test_models_are_compared_on_the_classes_that_all_of_them_have(nets):
    messages = []
    models = [str(nets / "two"), str(nets / "three")]
    comparison = compare(
        models, str(nets / "data"), nets / "out", methods=["grad-cam"], notify=messages.append
    )
    assert any("not all models have: middle" in line for line in messages)
    assert {row["images"] for row in comparison.models} == {len(comparison.test)}
    two, three = (comparison.test_of(candidate) for candidate in comparison.candidates)
    names = [two.classes[label] for label in two.labels.tolist()]
    assert names == [three.classes[label] for label in three.labels.tolist()]
    assert set(names) == {"dark", "bright"}
    assert write_comparison(comparison, nets / "out").is_file()


def test_models_without_a_common_class_cannot_be_compared(nets):
    for name in ("left", "right"):
        write_images(nets / "data" / "train", name, [1, 2])
        write_images(nets / "data" / "test", name, [3, 4])
    models = [str(nets / "two"), str(nets / "others")]
    with pytest.raises(UserError, match="of classes that all models have"):
        compare(models, str(nets / "data"), nets / "out", methods=["grad-cam"])
