"""Layouts of image folders: subfolders as splits, classes or neither, without reading images."""

import unicodedata
from pathlib import Path

import pytest

from foveal.datasets.layout import read_layout, split_from_name
from foveal.datasets.names import some_names, spelled_differently
from foveal.foundation.errors import UserError
from foveal.foundation.files import make_output_folder


def fill(root: Path, *paths: str) -> Path:
    """Create empty files; a path without a suffix becomes a folder with one image."""
    for path in paths:
        file = root / path if Path(path).suffix else root / path / "0.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def split_folders(root: Path) -> dict[str, tuple[str, list[str]]]:
    """Return, for each split, the name of its folder and the names of its classes."""
    parts = read_layout(root).parts
    return {s: (part.folder.name, sorted(part.classes)) for s, part in parts.items()}


def ignored_folders(root: Path) -> dict[str, str]:
    """Return why folders are ignored, by the name of the folder."""
    return {Path(p.path).name: p.reason for p in read_layout(root).ignored}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "trainset")),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "validation-data")),
        *((name, "test") for name in ("test", "Testing", "evaluation", "eval", "test images")),
        *((name, None) for name in ("cat", "trains", "testament", "set", "data", "validity", "")),
    ],
)
def test_split_names_are_recognised(name: str, split: str | None) -> None:
    assert split_from_name(name) == split


@pytest.mark.parametrize(
    ("train", "test"),
    [("Train", "Test"), ("Training", "Testing"), ("train", "evaluation"), ("training_set", "eval")],
)
@pytest.mark.parametrize("val", ["dev", "Valid", "validation", None])
def test_split_folders_are_recognised_by_any_usual_name(
    tmp_path: Path, train: str, test: str, val: str | None
) -> None:
    for name in filter(None, (train, val, test)):
        fill(tmp_path, f"{name}/cat", f"{name}/owl")
    expected = {"train": train, "val": val, "test": test}
    classes = ["cat", "owl"]
    assert split_folders(tmp_path) == {s: (name, classes) for s, name in expected.items() if name}
    assert f"test in {test}" in read_layout(tmp_path).summary()
    assert "classes: cat, owl" in read_layout(tmp_path).summary()


@pytest.mark.parametrize(
    "paths",
    [
        ("valid", "invalid"),
        ("valid/2020", "valid/2021", "invalid/2020", "invalid/2022"),
        ("train", "car", "bus"),
        ("train/steam", "train/electric", "car", "bus"),
        ("test/blood", "test/skin", "cure", "care"),
    ],
)
def test_class_may_have_the_name_of_a_split(tmp_path: Path, paths: tuple[str, ...]) -> None:
    fill(tmp_path, *paths)
    classes = sorted({path.split("/")[0] for path in paths})
    assert split_folders(tmp_path) == {"train": (tmp_path.name, classes)}
    assert ignored_folders(tmp_path) == {}


def test_class_folders_may_lie_next_to_a_test_folder_of_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "owl", "fox", "Test/cat", "Test/owl")
    assert split_folders(tmp_path) == {
        "train": (tmp_path.name, ["cat", "fox", "owl"]),
        "test": ("Test", ["cat", "owl"]),
    }


def test_folders_next_to_splits_are_skipped_and_reported(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "test/a", "extra", "other/a", "dev/1.png", ".git/a")
    (tmp_path / "train" / "c").mkdir()
    assert split_folders(tmp_path) == {"train": ("train", ["a", "b"]), "test": ("test", ["a"])}
    reasons = ignored_folders(tmp_path)
    assert set(reasons) == {"extra", "other", "dev"}
    assert "images of a split that are not in class folders" in reasons["dev"]
    [empty] = read_layout(tmp_path).parts["train"].problems
    assert Path(empty.path).name == "c"


def test_split_with_two_folders_is_read_from_the_usually_named_one(tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b", "test/a", "evaluation/a", "val/a", "dev/a")
    assert {s: name for s, (name, _) in split_folders(tmp_path).items()} == {
        "train": "train",
        "val": "val",
        "test": "test",
    }
    assert ignored_folders(tmp_path)["evaluation"] == "the split test is in test"


def test_split_folders_that_differ_only_in_case_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "Train/a", "train/b")
    with pytest.raises(UserError, match=r"split train: .*Train and .*train"):
        read_layout(tmp_path)


@pytest.mark.parametrize("test", ["test/1.png", "test/unknown"])
def test_unlabelled_images_are_not_a_split(tmp_path: Path, test: str) -> None:
    fill(tmp_path, "train/a", "train/b", test)
    assert set(split_folders(tmp_path)) == {"train"}
    assert "that are not in class folders" in ignored_folders(tmp_path)["test"]


def test_split_folders_without_class_folders_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path, "train", "test")
    with pytest.raises(UserError, match=r"found none \(test: images of a split that are not"):
        read_layout(tmp_path).part("train")


def test_runs_and_outputs_are_not_classes(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "owl", "runs/photos-focus/gallery.png")
    fill(tmp_path, "first/recipe.yaml", "first/gallery.png", "first/checkpoints/last.ckpt")
    fill(tmp_path, "comparison/explanations.csv", "comparison/plots/accuracy.png")
    fill(tmp_path, "owl/run/model.safetensors", "owl/run/gallery.png")
    make_output_folder(tmp_path / "pictures")
    fill(tmp_path, "pictures/0-0.png")
    assert split_folders(tmp_path) == {"train": (tmp_path.name, ["cat", "owl"])}
    assert set(ignored_folders(tmp_path)) == {"runs", "first", "comparison", "pictures"}
    assert [file.parent.name for file in read_layout(tmp_path).parts["train"].classes["owl"]] == [
        "owl"
    ]


def test_class_folder_may_be_named_runs_or_also_receive_output(tmp_path: Path) -> None:
    fill(tmp_path, "runs/0.png", "falls/0.png")
    make_output_folder(tmp_path / "falls")  # was a class before it became an output folder
    assert split_folders(tmp_path)["train"][1] == ["falls", "runs"]


def test_masks_folder_next_to_the_classes_is_not_a_class(tmp_path: Path) -> None:
    fill(tmp_path, "cat", "owl", "masks/cat", "masks/owl")
    assert split_folders(tmp_path)["train"][1] == ["cat", "owl"]
    assert ignored_folders(tmp_path) == {"masks": "repeats the classes next to it"}


@pytest.mark.parametrize(
    ("train", "test"), [("cat", "Cat"), ("sea lion", "sea_lion"), ("zebra", "zebras")]
)
def test_error_for_a_class_spelled_in_two_ways_names_both_folders(
    tmp_path: Path, train: str, test: str
) -> None:
    fill(tmp_path, f"train/{train}", "train/owl", f"test/{test}", "test/owl")
    with pytest.raises(UserError, match=rf"train/{train} and .*test/{test} are spelled"):
        read_layout(tmp_path)


def test_error_for_splits_without_a_common_class_names_the_classes_of_both(tmp_path: Path) -> None:
    fill(tmp_path, "train/cat", "train/owl", "test/Katze", "test/Eule")
    with pytest.raises(UserError, match=r"contain classes of .*\(cat, owl\), but got Eule, Katze"):
        read_layout(tmp_path)


def test_composed_and_decomposed_unicode_names_are_equal(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFC", "Bär")
    fill(tmp_path, f"train/{name}", "train/owl", f"test/{unicodedata.normalize('NFD', name)}")
    assert split_folders(tmp_path)["test"][1] == [name]


@pytest.mark.parametrize(
    ("first", "second"),
    [("cat", "Cat"), ("ankle boot", "Ankle-Boot"), ("colour", "color"), ("café", "Cafe")],
)
def test_different_spellings_of_a_class_are_detected(first: str, second: str) -> None:
    assert spelled_differently([first, "x"], [second, "y"]) == (first, second)
    assert spelled_differently([first, second], [second, first]) is None  # both splits have both


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cat", "car"),
        ("type 1", "type 2"),
        ("category a", "category b"),
        ("typical", "atypical"),
        ("n01440764", "n01440765"),
        ("male", "female"),
        ("+", "-"),
        ("か", "が"),
    ],
)
def test_similar_names_of_different_classes_are_accepted(first: str, second: str) -> None:
    assert spelled_differently([first], [second]) is None


def test_listed_names_are_few_and_printable() -> None:
    assert some_names(["a\x1b[31m", "b"]) == "a\\x1b[31m, b"
    assert some_names([str(i) for i in range(12)]).endswith("7 and 4 more")
